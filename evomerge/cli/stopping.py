"""Ctrl-C and SIGTERM: the first asks the study to stop after the current turn, the second stops it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_MESSAGE = b"\r\x1b[Kstopping after the current turn; Ctrl-C again stops at once\n"


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""


class Stop:
    """Says whether a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether to stop now."""
        return self.asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, _MESSAGE if os.isatty(2) else _MESSAGE[4:])  # print() must not be entered twice


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle both signals while inside."""
    stop = Stop()
    before = {number: signal.signal(number, stop._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end what is inside as Ctrl-C does, so that it cleans up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
