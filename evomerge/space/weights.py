"""Weights of pool members: the space of every linear merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.space.port import Dimension, Floats, Space
from evomerge.strategy import Problem


@dataclass(frozen=True)
class WeightSpace(Space):
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

    @property
    def limited(self) -> bool:
        """As ``bounded`` says; a simplex always is."""
        return self.bounded or self.kind == "simplex"

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """A weight per group and member; the middle of the box is the default (uniform weights on a simplex)."""
        low, high = (0.0, 1.0) if self.kind == "simplex" else (self.low, self.high)
        groups = [f"{group.name}." for group in problem.groups] if self.per_group else [""]
        names = [f"{group}{member}" for group in groups for member in problem.members]
        return tuple(Dimension(name, low, high, (low + high) / 2) for name in names)

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

    def encode(self, problem: Problem, recipe: Recipe) -> Floats | None:
        """The weights of a recipe that is a weighted sum of pool members in whole groups.

        None for any other, and for one that differs between groups where this space has one weight for all.
        """
        rows = _weights(problem, recipe, based=self.kind == "task_arithmetic")
        if rows is None:
            return None
        if not self.per_group:
            return rows[0] if (rows == rows[0]).all() else None
        return rows.ravel()


def _weights(problem: Problem, recipe: Recipe, *, based: bool) -> Floats | None:
    """Weights by group and member, (G, K), if the recipe has them; ``based``: of the differences from the base.

    A mixture of members (and the base) whose weights sum to one is the same mixture of their differences.
    """
    base = None if problem.base is None else MEMBER + problem.base
    columns = {MEMBER + name: at for at, name in enumerate(problem.members)}
    if based and base is not None:
        columns.setdefault(base, len(problem.members))
    differences = based and recipe.operator == "task_arithmetic" and recipe.sources[:1] == (base,)
    sources = recipe.sources[1:] if differences else recipe.sources
    plain = not recipe.options and recipe.noise is None and (differences or recipe.operator == "linear")
    if not plain or not columns.keys() >= set(sources):
        return None
    rows = np.zeros((len(problem.groups), len(problem.members) + 1))
    places = {group.name: (at, group.size) for at, group in enumerate(problem.groups)}
    for segment in recipe.segments:
        at, size = places[segment.group]
        if (segment.start, segment.stop) != (0, size):
            return None
        for source, value in zip(sources, segment.values, strict=True):
            rows[at, columns[source]] += value
    if based and not differences and not np.allclose(rows.sum(axis=1), 1.0):
        return None
    return rows[:, :-1]


def on_simplex(x: Floats) -> Floats:
    """The nearest point (Euclidean) with coordinates >= 0 that sum to 1 (Duchi et al., ICML 2008, Fig. 1)."""
    descending = np.sort(x)[::-1]
    excess = np.cumsum(descending) - 1.0
    counts = np.arange(1, x.size + 1)
    last = int(np.flatnonzero(descending - excess / counts > 0)[-1])
    return np.asarray(np.maximum(x - excess[last] / (last + 1), 0.0))
