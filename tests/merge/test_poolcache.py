import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from evomerge.errors import PoolError
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


ENTRY = 2000
"""Bytes of an entry of 1,000, with its header and to spare."""


def kilobyte(value: int) -> Arrays:
    return {"x": np.full(250, value, dtype=np.float32)}


def kept(cache: PoolCache, keys: Iterable[int]) -> set[int]:
    """Which keys need no computing; those that do are not kept by asking."""

    class Absent(Exception):
        pass

    def refuse() -> Arrays:
        raise Absent

    found = set()
    for key in keys:
        with suppress(Absent):
            assert same(cache.get(str(key), refuse), kilobyte(key))
            found.add(key)
    return found


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = PoolCache(tmp_path, limit=4 * ENTRY)

    def write(keys: range) -> None:
        for key in keys:
            cache.get(str(key), lambda: kilobyte(key))  # noqa: B023 - called at once
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * ENTRY

    write(range(5))
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert kept(PoolCache(tmp_path), [2, 4]) == {2, 4}
    write(range(5, 9))
    assert {2, 4} <= kept(cache, range(5)) < {0, 1, 2, 3, 4}
    assert kept(cache, [8]) == {8}


@pytest.mark.parametrize("threads", [1, 4])
def test_workers_together_stay_near_the_limit(tmp_path: Path, threads: int) -> None:
    limit = 64 * ENTRY

    def work(number: int) -> int:
        cache = PoolCache(tmp_path, limit)
        most = 0
        for key in range(100):
            cache.get(f"{number} {key}", lambda: kilobyte(key))  # noqa: B023 - called at once
            with suppress(FileNotFoundError):  # another one has just removed it
                most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir()))
        return most

    with ThreadPoolExecutor(threads) as pool:
        assert max(pool.map(work, range(threads))) <= limit + (threads - 1) * limit // 16
    assert len(list(tmp_path.iterdir())) > 30


def test_what_is_larger_than_the_limit_is_not_kept_and_removes_nothing(tmp_path: Path) -> None:
    cache = PoolCache(tmp_path, limit=2 * ENTRY)
    cache.get("1", lambda: kilobyte(1))
    large = {"x": np.zeros(2 * ENTRY)}
    assert same(cache.get("large", lambda: dict(large)), large)
    assert kept(cache, [1]) == {1}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_environment_says_how_much_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_GB", "0")
    PoolCache(tmp_path).get("1", lambda: kilobyte(1))
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("EVOMERGE_CACHE_GB", "1.5")
    assert poolcache.disk_limit() == 1_500_000_000


@pytest.mark.parametrize("value", ["a lot", "-1", "nan", "inf"])
def test_an_impossible_limit_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_GB", value)
    with pytest.raises(PoolError, match=r"EVOMERGE_CACHE_GB is .*give the GB"):
        PoolCache(None)


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert same(PoolCache(tmp_path / "file" / "cache").get("key", lambda: dict(ARRAYS)), ARRAYS)
