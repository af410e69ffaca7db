"""The few numbers of a study that move with every turn, so that its status never needs a count of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evomerge.candidate import Evaluated
from evomerge.store.port import Status, Turn


@dataclass(slots=True)
class Head:
    """What moves of a study's one row. Counts are of the search split; ``events`` is how many there are."""

    status: Status = "created"
    final: int | None = None
    turns: int = 0
    asked: int = 0
    told: int = 0
    failed: int = 0
    best: float | None = None
    best_number: int | None = None
    events: int = 0

    def count(self, turn: Turn, objective: str, direction: str) -> None:
        """Take one turn into account."""
        self.turns += 1
        self.asked += len(turn.asked)
        for evaluated in turn.told:
            self.told += 1
            whole = evaluated.candidate.request.ranges is None  # some items alone may be easy ones
            value = main_value(evaluated, objective) if whole else None
            if evaluated.score is None:
                self.failed += 1
            elif value is not None and (self.best is None or _better(value, self.best, direction)):
                self.best, self.best_number = value, evaluated.candidate.number
        if turn.leader is not None:
            self.best, self.best_number = turn.leader


def _better(value: float, than: float, direction: str) -> bool:
    return value < than if direction == "minimize" else value > than


def main_value(evaluated: Evaluated, objective: str) -> float | None:
    """The study's main objective of a result; ``None`` if it has none that can be compared."""
    for name, value in evaluated.score.objectives if evaluated.score is not None else ():
        if name == objective:
            return None if math.isnan(value) else value
    return None
