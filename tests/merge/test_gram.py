from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.errors import PoolError
from evomerge.merge import gram
from evomerge.merge.gram import Gram
from evomerge.merge.pool import ModelPool

MakePool = Callable[..., ModelPool]
GROUPS = {"rest": ("norm", "embed"), "blocks": ("layers.*",)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "BLOCK", 8)


def direct(pool: ModelPool, group: str, start: int, stop: int) -> np.ndarray:
    matrix = np.stack([pool.span(source, group, start, stop) for source in pool.sources]).astype(np.float64)
    return matrix @ matrix.T


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.data())
def test_any_stretch_equals_the_direct_product(make_pool: MakePool, data: st.DataObject) -> None:
    pool = make_pool(groups=GROUPS)
    made = Gram(pool)
    group = data.draw(st.sampled_from(pool.groups))
    start = data.draw(st.integers(0, group.size - 1))
    stop = data.draw(st.integers(start, group.size))
    expected = direct(pool, group.name, start, stop)
    np.testing.assert_allclose(made.inner(group.name, start, stop), expected, rtol=1e-12, atol=1e-12)


def test_the_cache_gives_the_same_bytes_and_is_used(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool()
    fresh = Gram(pool, tmp_path / "cache").inner("all", 0, 95)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(Gram, "_running_sums", lambda self: pytest.fail("computed again"))
    assert Gram(pool, tmp_path / "cache").inner("all", 0, 95).tobytes() == fresh.tobytes()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "magic"])
def test_a_damaged_cache_is_made_again(make_pool: MakePool, tmp_path: Path, damage: str) -> None:
    pool = make_pool()
    whole = Gram(pool, tmp_path).inner("all", 0, 95)
    (path,) = tmp_path.glob("gram-*")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    elif damage == "cut":
        del content[-8:]
    elif damage == "empty":
        content.clear()
    else:
        content[0] ^= 1
    good = path.read_bytes()
    path.write_bytes(content)
    assert Gram(pool, tmp_path).inner("all", 0, 95).tobytes() == whole.tobytes()
    assert path.read_bytes() == good


def test_another_pool_has_another_cache(make_pool: MakePool, tmp_path: Path) -> None:
    for seed in (0, 1):
        Gram(make_pool(seed=seed), tmp_path)
    assert len(list(tmp_path.glob("gram-*"))) == 2


def test_an_unwritable_cache_only_costs_time(make_pool: MakePool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = Gram(make_pool(), tmp_path / "file")
    assert made.inner("all", 0, 95).shape == (3, 3)


def test_nan_is_named(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    file = tmp_path / "pool0" / "1.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.array([np.nan], dtype=np.float32).tobytes()
    file.write_bytes(content)
    with pytest.raises(PoolError, match="m1: tensor"):
        Gram(pool).inner("all", 0, 95)


def test_threads_change_no_byte(make_pool: MakePool) -> None:
    pool = make_pool(groups=GROUPS, shapes={"norm": (3,), "embed": (50, 20), "layers.1": (70, 10)})
    made = [Gram(pool, threads=threads) for threads in (1, 2, 5)]
    for group in pool.groups:
        for start, stop in ((0, group.size), (3, group.size - 1), (9, 12)):
            assert len({one.inner(group.name, start, stop).tobytes() for one in made}) == 1
