import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from evomerge.merge.once import Once


def test_many_threads_compute_a_value_once() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def compute() -> object:
        calls.append(1)
        gate.wait(5)
        return object()

    once = Once()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(once.get, "key", compute) for _ in range(4)]
        gate.set()
        values = {id(future.result()) for future in futures}
    assert len(calls) == len(values) == 1


def test_a_failure_is_raised_and_not_kept() -> None:
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.get("key", lambda: 1 // 0)
    assert once.get("key", lambda: 7) == 7


def test_the_least_recently_used_is_forgotten() -> None:
    once = Once(limit=2)
    for key in ("a", "b"):
        once.get(key, lambda key=key: key)  # type: ignore[misc]
    once.get("a", lambda: pytest.fail("a is kept"))
    once.get("c", lambda: "c")
    assert once.get("a", lambda: "again") == "a"
    assert once.get("b", lambda: "again") == "again"


def test_values_may_need_one_another() -> None:
    once = Once()
    assert once.get("sum", lambda: 1 + once.get("part", lambda: 2)) == 3
