"""A soft time limit inside one process: an alarm signal that interrupts Python code in the main thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class TimeUp(BaseException):
    """The limit is over. Not an `Exception`, so that a fitness which catches those does not catch it."""


def available() -> bool:
    """Whether `limited` works here: on a POSIX system, in the main thread."""
    return hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()


def limited(call: Callable[[], T], seconds: float) -> T:
    """What ``call`` returns, if it does so in time.

    Soft: one long call into native code is interrupted only when it returns. An alarm that was set before goes on
    afterwards with the time it has left.

    Raises:
        TimeUp: the time is over.
    """
    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise TimeUp

    begun = time.perf_counter()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return call()
        finally:
            armed = False  # from here on a late alarm is ignored, so that the outer block runs whole
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.perf_counter() - begun), 1e-3), interval)
