from collections.abc import Callable, Iterator
from functools import partial
from threading import Barrier, get_ident
from time import sleep

import pytest

from evomerge.merge.parallel import run


def slow(at: int) -> int:
    sleep(0.001 * (at % 3))
    return at


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_results_come_in_the_order_of_the_tasks(threads: int, count: int) -> None:
    assert list(run((partial(slow, at) for at in range(count)), threads)) == list(range(count))


def test_tasks_run_at_the_same_time() -> None:
    both = Barrier(2, timeout=60)
    assert sorted(run([both.wait, both.wait], 2)) == [0, 1]


def test_one_thread_is_the_callers_own() -> None:
    assert set(run([get_ident] * 3, 1)) == {get_ident()}


@pytest.mark.parametrize("threads", [1, 3])
def test_tasks_are_made_little_before_they_are_done(threads: int) -> None:
    made = 0

    def tasks() -> Iterator[Callable[[], int]]:
        nonlocal made
        for at in range(1000):
            made += 1
            yield partial(slow, at)

    results = run(tasks(), threads)
    for _ in range(10):
        next(results)
    assert made < 50
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_ends_it_and_nothing_else_is_begun(threads: int) -> None:
    begun: list[int] = []

    def work(at: int) -> int:
        begun.append(at)
        if at == 20:
            raise ValueError("at 20")
        return at

    with pytest.raises(ValueError, match="at 20"):
        list(run((partial(work, at) for at in range(1000)), threads))
    assert len(begun) < 60
