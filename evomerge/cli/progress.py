"""How work is shown while it lasts: one live line on a terminal, plain lines every few seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from evomerge.cli.output import duration, note, number, size, worth

if TYPE_CHECKING:
    from evomerge.runner import Progress

LINE_EVERY = 5.0
"""Seconds between two plain lines."""

_RATE_OVER = 15.0
"""Seconds that the rate is averaged over."""

_SHOWN_EVERY = 1 << 23
"""Bytes between two looks at a bar: telling it costs as much as merging a small piece."""


class Meter:
    """Rate and time to go, from what `Progress` says."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()

    def rate(self, spent: float) -> float | None:
        """Evaluations per second over the last seconds."""
        now = self._clock()
        self._seen.append((now, spent))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_OVER:
            self._seen.popleft()
        began, first = self._seen[0]
        return (spent - first) / (now - began) if now > began and spent > first else None

    def text(self, progress: Progress, gap: str = "  ") -> str:
        """Everything but the bar, on one line."""
        if progress.phase != "search" and progress.in_flight:
            return f"scoring {progress.in_flight} on the {progress.phase} split"
        rate = self.rate(progress.spent)
        parts = [f"{worth(progress.spent)}/{progress.budget}"]
        if rate is not None:
            parts.append(f"{rate:.3g}/s")
        if rate is not None and progress.spent < progress.budget:
            parts.append(f"ETA {duration((progress.budget - progress.spent) / rate)}")
        if progress.best is not None:
            parts.append(f"best {number(progress.best)} (#{progress.best_number})")
        if "coverage" in progress.numbers:
            parts.append(f"coverage {progress.numbers['coverage']:.3f}")
        parts.append(f"{progress.workers} worker{'s' if progress.workers != 1 else ''}")
        if progress.failed:
            parts.append(f"{progress.failed} failed")
        return gap.join(parts)


@contextmanager
def shown(name: str) -> Iterator[Callable[[Progress], None]]:
    """Give the function to call with each `Progress`."""
    if sys.stderr.isatty():
        with _live(name) as show:
            yield show
    else:
        yield _plain(name)


@contextmanager
def _live(name: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        *((BarColumn(bar_width=16),) if console.width >= 100 else ()),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        TextColumn("", table_column=Column(min_width=2)),  # room for the ^C that a terminal shows
    )
    meter = Meter()
    with Bars(*columns, console=console, refresh_per_second=4) as bars:
        task = bars.add_task(name, total=None, text="starting")

        def show(progress: Progress) -> None:
            bars.update(task, total=progress.budget, completed=progress.spent, text=meter.text(progress, " "))

        yield show


def _plain(name: str) -> Callable[[Progress], None]:
    meter, last = Meter(), time.monotonic() - LINE_EVERY

    def show(progress: Progress) -> None:
        nonlocal last
        text = meter.text(progress)
        over = progress.phase != "search" and not progress.in_flight
        if over or time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            note(f"{time.strftime('%H:%M:%S')} {name}: {text}")

    return show


@contextmanager
def copied(total: int) -> Iterator[Callable[[int], None]]:
    """Give the function to call with the bytes of each piece written, of ``total`` in all."""
    if sys.stderr.isatty():
        with _bar(total) as advance:
            yield advance
    else:
        yield _plain_bytes(total)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), refresh_per_second=4) as bars:
        task = bars.add_task("merging", total=total)
        waiting = 0

        def advance(written: int) -> None:
            nonlocal waiting
            waiting += written
            if waiting >= _SHOWN_EVERY:
                bars.advance(task, waiting)
                waiting = 0

        yield advance
        bars.advance(task, waiting)


def _plain_bytes(total: int) -> Callable[[int], None]:
    done, last, began = 0, time.monotonic(), time.monotonic()

    def advance(written: int) -> None:
        nonlocal done, last
        done += written
        now = time.monotonic()
        if done and now - last >= LINE_EVERY:  # thresholds and the like may take long before the first byte
            last = now
            rate = done / (now - began)
            left = duration((total - done) / rate)
            note(f"{time.strftime('%H:%M:%S')} {size(done)} of {size(total)} written, {size(rate)}/s, ETA {left}")

    return advance
