"""Search spaces: from a vector of plain numbers to a recipe, so that an optimizer never knows what x means.

A space is a frozen dataclass that a strategy's settings hold; `decode` and its like are pure. Dimensions are listed
group by group in the problem's order, and within a group member by member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.strategy import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WeightSpace:
    """One weight per parameter group and pool member, a box: ``theta = sum_i w_i theta_i``, or around a base.

    Attributes:
        kind: ``linear`` weighs the members themselves; ``task_arithmetic`` their differences from the base;
            ``simplex`` is linear with weights that are made positive and sum to one in each group.
        low: smallest weight (for ``simplex`` always 0).
        high: largest weight (for ``simplex`` always 1).
        bounded: keep proposals inside the box; off: ``low`` and ``high`` only say where to start.
        per_group: a weight for each parameter group; off: one for the whole model.
    """

    kind: Literal["linear", "task_arithmetic", "simplex"] = "linear"
    low: float = 0.0
    high: float = 1.0
    bounded: bool = True
    per_group: bool = True

    def check(self, problem: Problem) -> None:
        """Refuse a space that this problem cannot have.

        Raises:
            StrategyError: reversed bounds, or task arithmetic without a base.
        """
        if not self.low < self.high:
            raise StrategyError(f"space.low = {self.low} is not below space.high = {self.high}")
        if self.kind == "task_arithmetic" and problem.base is None:
            raise StrategyError("space.kind task_arithmetic needs pool.base, the common ancestor of the members")

    def size(self, problem: Problem) -> int:
        """Number of dimensions."""
        return len(problem.members) * (len(problem.groups) if self.per_group else 1)

    def box(self) -> tuple[float, float]:
        """Smallest and largest value of every dimension."""
        return (0.0, 1.0) if self.kind == "simplex" else (self.low, self.high)

    def decode(self, problem: Problem, x: Sequence[float] | Floats) -> Recipe:
        """The recipe that ``x``, of ``size`` dimensions, stands for."""
        rows = np.asarray(x, dtype=np.float64).reshape(-1, len(problem.members))
        if not self.per_group:
            rows = np.repeat(rows, len(problem.groups), axis=0)
        if self.kind == "simplex":
            rows = np.array([on_simplex(row) for row in rows])
        segments = tuple(
            Segment(group.name, 0, group.size, tuple(row.tolist()))
            for group, row in zip(problem.groups, rows, strict=True)
        )
        members = tuple(MEMBER + name for name in problem.members)
        if self.kind == "task_arithmetic":
            return Recipe("task_arithmetic", (f"{MEMBER}{problem.base}", *members), segments)
        return Recipe("linear", members, segments)


def on_simplex(x: Floats) -> Floats:
    """The nearest point (Euclidean) with coordinates >= 0 that sum to 1 (Duchi et al., ICML 2008, Fig. 1)."""
    descending = np.sort(x)[::-1]
    excess = np.cumsum(descending) - 1.0
    counts = np.arange(1, x.size + 1)
    last = int(np.flatnonzero(descending - excess / counts > 0)[-1])
    return np.asarray(np.maximum(x - excess[last] / (last + 1), 0.0))
