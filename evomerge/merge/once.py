"""Values that threads share: each is computed by whichever thread asks first, while the others wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """A memory of the ``limit`` most recently used results by key (``None``: all of them)."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute()`` returned for the key; an exception is raised again for all who wait, and not kept."""
        with self._lock:
            future: Future[T] | None = self._kept.get(key)
            mine = future is None
            if future is None:
                future = self._kept[key] = Future()
                if self._limit is not None and len(self._kept) > self._limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
        if mine:
            try:
                future.set_result(compute())
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
                raise
        return future.result()

    def clear(self) -> None:
        """Forget all; whoever waits gets what is being computed."""
        with self._lock:
            self._kept.clear()
