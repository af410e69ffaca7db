import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evomerge.merge import poolcache
from evomerge.merge.poolcache import Arrays, PoolCache

ARRAYS = {"counts": np.arange(6).reshape(2, 3), "share": np.array([0.25], dtype=np.float32), "none": np.zeros((0, 4))}


def same(one: Arrays, two: Arrays) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


def never() -> Arrays:
    pytest.fail("the entry is kept and must not be computed again")


def counting(calls: list[int]) -> Callable[[], Arrays]:
    def compute() -> Arrays:
        calls.append(1)
        return dict(ARRAYS)

    return compute


def test_an_entry_is_computed_once_for_all_processes(tmp_path: Path) -> None:
    assert same(PoolCache(tmp_path / "cache").get("key", lambda: dict(ARRAYS)), ARRAYS)
    assert same(PoolCache(tmp_path / "cache").get("key", never), ARRAYS)


def test_keys_do_not_mix(tmp_path: Path) -> None:
    cache = PoolCache(tmp_path)
    cache.get("one", lambda: {"x": np.array([1.0])})
    assert cache.get("two", lambda: {"x": np.array([2.0])})["x"][0] == 2.0


def test_without_a_folder_nothing_is_kept() -> None:
    calls: list[int] = []
    cache = PoolCache(None)
    for _ in range(2):
        assert same(cache.get("key", counting(calls)), ARRAYS)
    assert len(calls) == 2


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    PoolCache(tmp_path).get("key", lambda: dict(ARRAYS))
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:-5])
    calls: list[int] = []
    assert same(PoolCache(tmp_path).get("key", counting(calls)), ARRAYS)
    assert calls
    assert same(PoolCache(tmp_path).get("key", never), ARRAYS)


def test_a_disk_that_is_almost_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=poolcache.SPARE + 50)
    monkeypatch.setattr(poolcache.shutil, "disk_usage", lambda _: usage)  # type: ignore[attr-defined]
    calls: list[int] = []
    for _ in range(2):
        assert same(PoolCache(tmp_path).get("key", counting(calls)), ARRAYS)
    assert len(calls) == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert same(PoolCache(tmp_path / "file" / "cache").get("key", lambda: dict(ARRAYS)), ARRAYS)
