"""Work in pieces, over threads. What pieces there are never depends on the threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 4
"""Tasks per thread that are begun before the first result is taken."""


def cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux says
        return os.cpu_count() or 1


def run(tasks: Iterable[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """The tasks' results in their order, with so many at work at a time; in this thread if it is one.

    After an error, and when it is closed, the tasks under way are waited for and no other is begun.
    """
    if threads == 1:
        for task in tasks:
            yield task()
        return
    pending: deque[Future[T]] = deque()
    waiting = iter(tasks)
    with ThreadPoolExecutor(threads) as pool:
        try:
            pending.extend(pool.submit(task) for task in islice(waiting, _AHEAD * threads))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(task) for task in islice(waiting, 1))
        finally:
            pool.shutdown(cancel_futures=True)
