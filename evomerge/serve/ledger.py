"""Who had what scored, when: the audit log, one JSON object a line, and the quotas that are counted from it.

A line is written before an answer goes out, and the log is read again when the server starts: a restart forgets no
quota. It holds names of tokens' holders, never tokens.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from evomerge.errors import ConfigError, SpentError
from evomerge.serve.tokens import Holder

Outcome = Literal["scored", "failed", "unavailable", "refused"]

_COUNTED = ("scored", "failed")
"""Evaluations that took place, and so count: a candidate that cannot be scored costs as much as another."""


@dataclass(frozen=True)
class Entry:
    """One request. ``why`` is for the server's owner and never sent."""

    holder: str
    digest: str
    split: str
    items: int
    seconds: float
    outcome: Outcome
    why: str = ""


@dataclass
class _Used:
    evaluations: int = 0
    items: int = 0


class Ledger:
    """The log in ``path``, and what is left of each holder's ``evaluations`` and ``items`` (default limits of all).

    Raises:
        ConfigError: the file is no audit log, or cannot be written.
    """

    def __init__(self, path: Path, evaluations: int | None = None, items: int | None = None) -> None:
        self._limits = evaluations, items
        self._used: dict[str, _Used] = defaultdict(_Used)
        try:
            if path.exists():
                self._replay(path)
            self._file: TextIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")
        except OSError as error:
            raise ConfigError(f"cannot keep the audit log {path}: {error.strerror}; choose another place") from error

    def left(self, holder: Holder) -> tuple[int | None, int | None]:
        """Evaluations and items that the holder may still ask for; ``None``: any number."""
        used = self._used[holder.name]
        limits = holder.evaluations or self._limits[0], holder.items or self._limits[1]
        spent = used.evaluations, used.items
        most, least = (None if limit is None else limit - one for limit, one in zip(limits, spent, strict=True))
        return most, least

    def reserve(self, holder: Holder, items: int) -> None:
        """Count one evaluation on so many items; `refund` takes it back.

        Raises:
            SpentError: that is more than is left.
        """
        evaluations_left, items_left = self.left(holder)
        if evaluations_left is not None and evaluations_left < 1:
            raise SpentError("the quota of evaluations of this token is spent; ask the server's owner for more")
        if items_left is not None and items_left < items:
            raise SpentError(
                f"{items_left} items are left of this token's quota, and {items} were asked for; ask for fewer, or the "
                "server's owner for more"
            )
        self._used[holder.name].evaluations += 1
        self._used[holder.name].items += items

    def refund(self, holder: Holder, items: int) -> None:
        """Take back a `reserve` whose evaluation did not take place."""
        self._used[holder.name].evaluations -= 1
        self._used[holder.name].items -= items

    def write(self, entry: Entry) -> None:
        """Add a line.

        Raises:
            OSError: the disk refuses.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(entry)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _replay(self, path: Path) -> None:
        """Count what was used; a last line that a kill cut off is ended, so that the next one stands alone."""
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                one: dict[str, Any] = json.loads(line)
                name, counted, items = str(one["holder"]), one["outcome"] in _COUNTED, int(one["items"])
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines) or not line.endswith("}"):
                    continue  # cut off by a kill
                raise ConfigError(f"{path}, line {number}: this is no line of an audit log; move the file") from error
            if counted:
                self._used[name].evaluations += 1
                self._used[name].items += items
