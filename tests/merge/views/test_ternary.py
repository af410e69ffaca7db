from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Recipe, Segment
from evomerge.errors import ExportError, PoolError
from evomerge.merge.build import Builder
from evomerge.merge.compress import Compressed, compress
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

SHAPES = {"0.weight": (300, 200), "0.bias": (200,), "1.weight": (7, 5), "head": (1,)}


def checkpoint(path: Path, seed: int, bfloat16: bool = False, **others: Any) -> Path:
    draw = np.random.default_rng(seed)
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return save_checkpoint(path, tensors | others, bfloat16=bfloat16)


def pool(folder: Path, *members: str, base: str = "base.safetensors", **settings: Any) -> ModelPool:
    return ModelPool.open(PoolSettings(members={Path(one).stem: one for one in members}, base=base, **settings), folder)


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    step = np.arange(3, dtype=np.int64)
    checkpoint(tmp_path / "base.safetensors", 1, bfloat16=request.param, step=step)
    checkpoint(tmp_path / "one.safetensors", 2, bfloat16=request.param, step=step)
    return tmp_path


def written(folder: Path, **options: Any) -> Compressed:
    return compress(pool(folder, "one.safetensors"), "one", folder / "small.ternary", **options)


def model(of: ModelPool, name: str) -> dict[str, Any]:
    return {one: of.checkpoints[name].floats(one) for one in of.checkpoints[name].entries}


def test_a_stored_member_is_what_the_operator_makes_of_it(folder: Path) -> None:
    written(folder, keep=0.3, alpha=1.5)
    both = pool(folder, "one.safetensors", "small.ternary")
    segments = tuple(Segment(group.name, 0, group.size, (0.3, 1.5)) for group in both.groups)
    builder = Builder(both, "table")
    vector = builder.resolve(Recipe("compeft", ("pool:base", "pool:one"), segments))
    made = np.concatenate([builder.read(vector, slot, 0, slot.size) for slot in both.layout.slots])
    assert both.vector("small").tobytes() == made.tobytes()


def test_it_is_read_in_any_stretch(folder: Path) -> None:
    written(folder)
    source = pool(folder, "small.ternary").checkpoints["small"]
    whole = source.floats("0.weight")
    for start, stop in ((0, 1), (32_000, 33_500), (59_999, 60_000)):
        assert source.floats("0.weight", start, stop).tobytes() == whole[start:stop].tobytes()


def test_what_is_not_merged_stays_the_bases(folder: Path) -> None:
    compress(pool(folder, "one.safetensors", exclude=("0.bias",)), "one", folder / "small.ternary")
    both = pool(folder, "small.ternary")
    small, base = model(both, "small"), model(both, "base")
    assert all((small[name] == base[name]).all() for name in ("0.bias", "step"))
    assert not (small["0.weight"] == base["0.weight"]).all()
    assert both.checkpoints["small"].export_dtype("0.weight") == both.checkpoints["base"].entries["0.weight"].dtype


def test_the_report_counts_bytes_and_what_was_kept(tmp_path: Path) -> None:
    checkpoint(tmp_path / "base.safetensors", 1)
    checkpoint(tmp_path / "one.safetensors", 2)
    found = written(tmp_path, keep=0.05)
    assert found.bytes == found.path.stat().st_size
    assert found.original == 4 * sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert found.share == pytest.approx(0.05, abs=1e-4)
    assert found.factor > 50  # 32 bits against 0.34


def test_fingerprints_follow_base_and_vector(folder: Path) -> None:
    names = []
    for seed in (1, 3):
        checkpoint(folder / f"base{seed}.safetensors", seed)
    for keep, seed in ((0.1, 1), (0.2, 1), (0.2, 3)):
        home = pool(folder, "one.safetensors", base=f"base{seed}.safetensors", exclude=("step",))
        compress(home, "one", folder / f"{keep}{seed}.ternary", keep)
        source = pool(folder, f"{keep}{seed}.ternary", base=f"base{seed}.safetensors").checkpoints[f"{keep}{seed}"]
        names.append((source.fingerprint("0.weight"), source.identity(), source.digest()))
    assert all(len(set(column)) == 3 for column in zip(*names, strict=True))


def test_another_base_is_noticed(folder: Path) -> None:
    written(folder)
    checkpoint(folder / "other.safetensors", 3, step=np.arange(3, dtype=np.int64))
    other = pool(folder, "small.ternary", base="other.safetensors")
    with pytest.raises(PoolError, match=r"small.ternary was written for a base that differs.*'0.weight'"):
        other.checkpoints["small"].floats("0.weight", 5, 6)


def test_a_base_of_other_shapes_is_refused_at_once(folder: Path) -> None:
    written(folder)
    save_checkpoint(folder / "other.safetensors", {"0.weight": np.ones((200, 300), dtype=np.float32)})
    with pytest.raises(PoolError, match=r"'0.bias' of \[200\], which is not there"):
        pool(folder, "small.ternary", base="other.safetensors")


def test_a_vector_without_a_base_is_refused(folder: Path) -> None:
    written(folder)
    with pytest.raises(PoolError, match=r"small.ternary .*pool.base"):
        ModelPool.open(PoolSettings(members={"small": "small.ternary"}), folder)
    with pytest.raises(PoolError, match=r"pool.base"):
        compress(ModelPool.open(PoolSettings(members={"one": "one.safetensors"}), folder), "one", folder / "b.ternary")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("small.ternary", {"keep": 1.1}, "keep = 1.1"),
        ("small.ternary", {"alpha": 0.0}, "alpha = 0.0"),
        ("small.ternary", {"alpha": 1e39}, "choose a smaller alpha"),
        ("one.safetensors", {}, "must end in .ternary"),
        ("nowhere/x.ternary", {}, "cannot write"),
        ("there.ternary", {}, "exists"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    folder: Path, name: str, options: dict[str, Any], words: str
) -> None:
    (folder / "there.ternary").write_text("mine")
    before = sorted(folder.iterdir())
    with pytest.raises(ExportError, match=words):
        compress(pool(folder, "one.safetensors"), "one", folder / name, **options)
    assert sorted(folder.iterdir()) == before


def test_an_unknown_member_and_nan_are_named(folder: Path) -> None:
    with pytest.raises(PoolError, match="no member 'two'"):
        compress(pool(folder, "one.safetensors"), "two", folder / "x.ternary")
    broken = {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in SHAPES.items()}
    save_checkpoint(folder / "nan.safetensors", broken | {"step": np.arange(3, dtype=np.int64)})
    with pytest.raises(PoolError, match="nan: tensor"):
        compress(pool(folder, "nan.safetensors"), "nan", folder / "x.ternary")
