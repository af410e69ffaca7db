"""What may be spent on a server, and how fast it wants to be asked."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from evomerge.errors import SpentError

LONGEST_HOLD = 120.0
"""Seconds that one header may keep all requests back."""

_RATES = (
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
)
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


class Budget:
    """Requests and items that may still be spent. Shared by threads."""

    def __init__(self, requests: int | None, items: int | None) -> None:
        self._lock = threading.Lock()
        self._limits = {"requests": requests, "items": items}
        self.spent = {"requests": 0, "items": 0}

    def spend(self, what: str, count: int) -> None:
        """Take so many.

        Raises:
            SpentError: fewer are left.
        """
        with self._lock:
            limit = self._limits[what]
            if limit is not None and self.spent[what] + count > limit:
                raise SpentError(
                    f"{self.spent[what]} of this run's {limit} {what} are spent and {count} more were wanted. Results "
                    f"so far are kept: 'evomerge resume' goes on with as many again, or more by a larger max_{what}"
                )
            self.spent[what] += count

    def give_back(self, what: str, count: int) -> None:
        """Return what was taken and not used."""
        with self._lock:
            self.spent[what] -= count


class Pace:
    """When the next request may go out, by what the server said of its limits."""

    def __init__(self) -> None:
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        """Nothing goes out for so long, or `LONGEST_HOLD`."""
        self._until = max(self._until, time.monotonic() + min(seconds, LONGEST_HOLD))

    def learn(self, headers: Mapping[str, str]) -> None:
        """Heed headers that say how many requests are left, and until when."""
        for remaining, reset in _RATES:
            left, span = headers.get(remaining, ""), seconds_of(headers.get(reset, ""))
            if left.strip() == "0" and span is not None:
                self.hold(span)

    async def turn(self) -> None:
        """Wait until a request may go out; those who waited do not all go at once."""
        while (wait := self._until - time.monotonic()) > 0:
            await asyncio.sleep(wait + random.uniform(0.0, min(1.0, 0.1 * wait + 0.01)))


def seconds_of(text: str) -> float | None:
    """The span that a header means: seconds, a date, a time as seconds since 1970, or ``6m0s`` and ``20ms``."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        spans = _SPAN.fullmatch(text)
        if text and spans is not None:
            hours, minutes, seconds, thousandths = (float(one or 0) for one in spans.groups())
            return 3600 * hours + 60 * minutes + seconds + thousandths / 1000
        return _until_date(text)
    if not 0 <= number < float("inf"):
        return None
    return max(0.0, number - time.time()) if number > 1e9 else number


def _until_date(text: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
