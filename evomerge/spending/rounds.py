"""Rounds of items, and what is known of a candidate that has seen some of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Request, Score
from evomerge.errors import StrategyError
from evomerge.strategy import Objective

Floats = NDArray[np.float64]


def boundaries(first: int, items: int) -> tuple[int, ...]:
    """How many items a candidate has seen after each round: ``first``, then twice as many each time, at last all."""
    ends = [min(first, items)]
    while ends[-1] < items:
        ends.append(min(2 * ends[-1], items))
    return tuple(ends)


@dataclass(frozen=True)
class Running:
    """A candidate of the inner strategy that is being evaluated.

    ``rows`` are its scores of the first items in the study's order, larger is better, float64 (``right``: all are 0 or
    1); ``objectives`` are means over these items.
    """

    candidate: Candidate
    rows: Floats
    right: bool = True
    objectives: tuple[tuple[str, float], ...] = ()
    failure: str | None = None

    @property
    def seen(self) -> int:
        """How many items it was scored on."""
        return int(self.rows.size)

    def request(self, end: int) -> Request:
        """For the items from those seen to ``end``."""
        return Request(((self.seen, end),))

    def with_round(self, score: Score, objective: Objective, size: int) -> Running:
        """After another round of ``size`` items."""
        rows, before = _rows(score, objective, size), self.seen
        share = before / (before + size)
        known = dict(self.objectives)
        means = tuple((name, share * known.get(name, value) + (1 - share) * value) for name, value in score.objectives)
        right = self.right and bool(np.isin(rows, (0.0, 1.0)).all())
        return replace(self, rows=np.concatenate([self.rows, rows]), right=right, objectives=means)

    def score(self, objective: Objective, gain: float | None = None, note: str = "") -> Score:
        """Its score on the items seen; with ``gain``, that estimate for the main objective in place of their mean."""
        value = objective.gain(float(self.rows.mean()) if gain is None else gain)
        means = tuple((name, value if name == objective.name else mean) for name, mean in self.objectives)
        return Score(means, notes=(("estimate", note),) if note else ())


def begun(candidate: Candidate) -> Running:
    """A candidate that has seen nothing."""
    return Running(candidate, np.zeros(0))


def _rows(score: Score, objective: Objective, size: int) -> Floats:
    """The row that the main objective is the mean of, turned so that larger is better.

    Raises:
        StrategyError: it is the mean of neither.
    """
    value = score[objective.name]
    minimized = objective.direction == "minimize"
    for rows in (score.losses, score.items) if minimized else (score.items, score.losses):
        if rows is not None and rows.shape == (size,):
            row = rows.astype(np.float64)
            if math.isclose(float(row.mean()), value, rel_tol=1e-5, abs_tol=1e-7):
                return -row if minimized else row
    raise StrategyError(
        f"objective {objective.name!r} is the mean over items of neither their scores nor their losses, so that no "
        "candidate can be judged by some of them; choose another objective, or evaluation.stop: never"
    )
