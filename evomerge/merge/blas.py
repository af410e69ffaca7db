"""Matrix products and decompositions whose results do not depend on how many threads there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np  # noqa: F401 - its library must be loaded to be found
from threadpoolctl import ThreadpoolController

_lock = Lock()
_within: list[tuple[int, ...]] = []
"""What was allowed before the first came, once for each caller within."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, numpy's linear algebra uses one thread, whichever thread calls it; several may be within at once.

    Libraries split their sums by the number of threads, so the last bits of what they return would depend on it.
    """
    with _lock:
        _within.append(_within[0] if _within else tuple(one.num_threads for one in _libraries()))
        _allow([1] * len(_libraries()))
    try:
        yield
    finally:
        with _lock:
            before = _within.pop()
            if not _within:
                _allow(before)


def _allow(threads: Sequence[int]) -> None:
    for library, number in zip(_libraries(), threads, strict=True):
        # of OpenBLAS threadpoolctl heeds only the first thread that sets a limit, and silently no other
        release = getattr(library, "clear_controlling_thread", lambda force: None)
        release(force=True)
        library.set_num_threads(number)
        release(force=True)


@cache
def _libraries() -> list[Any]:
    """What numpy's linear algebra is done by."""
    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found
