"""A study whose driver is killed at one of its saves, and what must not depend on that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from evomerge import codec
from evomerge.candidate import Split
from evomerge.store.port import StudyStore, Turn


class Killed(BaseException):
    """The process is gone. Not an `Exception`: nothing may catch it."""


class Mortal:
    """Stands for a study whose driver is killed ``before`` or ``after`` its n-th save; the rest is passed on."""

    def __init__(self, study: StudyStore, kill_at: int, when: str) -> None:
        self._study, self._left, self._when = study, kill_at, when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _save(self, save: Callable[[], None]) -> None:
        if self._left == 0 and self._when == "before":
            raise Killed
        save()
        if self._left == 0:
            raise Killed
        self._left -= 1

    def save_turn(self, turn: Turn) -> None:
        """Keep it, or die."""
        self._save(lambda: self._study.save_turn(turn))

    def save_scores(self, split: Split, evaluated: Any) -> None:
        """Keep them, or die."""
        self._save(lambda: self._study.save_scores(split, evaluated))


def history(study: StudyStore) -> list[str]:
    """All that must not depend on interruptions, as text: turns, results of every split, population, final choice."""
    lines = [codec.dump(candidate) for turn in study.turns() for candidate in turn.asked]
    for split in get_args(Split):
        for one in study.scores(split):
            verdict = codec.dump(one.score) if one.score is not None else one.failure
            lines.append(f"{split} {one.candidate.number} {verdict}")
    lines += [f"{seq} {change}" for seq, change in study.changes()]
    lines += [f"turn {turn.seq} {[e.candidate.number for e in turn.told]}" for turn in study.turns(items=False)]
    return [*lines, f"final {study.summary().final}"]
