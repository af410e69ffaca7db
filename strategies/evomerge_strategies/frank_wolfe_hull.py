"""What Frank-Wolfe searches: the convex hull of a pool's models, and how a point of it becomes a recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.strategy import Problem

Floats = NDArray[np.float64]

WEIGHT = "weight"
"""What operators call the weight of a model."""


class Hull:
    """The members of the pool and, where it is none of them, the base: V models, in this order.

    Weights are float64 (rows, V), each row on the simplex: a row per parameter group, or one for all of them. An
    ``operator`` takes the members' weights in place of the weighted sum; if it is one around the base, the base's
    own weight is what the others leave, and one without a base has no such model.

    Raises:
        StrategyError: the operator has no weights, or does not fit the pool.
    """

    def __init__(self, problem: Problem, *, per_group: bool, operator: OperatorSpace | None) -> None:
        self._problem, self._per_group = problem, per_group
        self._operator = None if operator is None else _only_weights(problem, operator, per_group)
        based = operator is None or problem.operator(operator.operator).based
        apart = problem.base is not None and problem.base not in problem.members and based
        self.models = (*problem.members, *((str(problem.base),) if apart else ()))
        self.rows = len(problem.groups) if per_group else 1

    def recipe(self, weights: Floats) -> Recipe:
        """The recipe of a point. Models without weight are no sources of a weighted sum."""
        problem = self._problem
        if self._operator is not None:
            return self._operator.decode(problem, weights[:, : len(problem.members)].ravel())
        rows = np.broadcast_to(weights, (len(problem.groups), len(self.models)))
        used = np.flatnonzero(rows.any(axis=0))
        segments = tuple(
            Segment(group.name, 0, group.size, tuple(row[used].tolist()))
            for group, row in zip(problem.groups, rows, strict=True)
        )
        return Recipe("linear", tuple(MEMBER + self.models[at] for at in used), segments)

    def slopes(self, found: Floats) -> Floats:
        """A score's slopes (groups, members and base), as slopes of the weights."""
        columns = list(range(len(self._problem.members)))
        if len(self.models) > len(columns):
            columns.append(len(columns))
        mine = found[:, columns]
        return mine if self._per_group else mine.sum(axis=0, keepdims=True)

    def vertex(self, model: str) -> Floats:
        """One model with all the weight."""
        weights = np.zeros((self.rows, len(self.models)))
        weights[:, self.models.index(model)] = 1.0
        return weights

    def uniform(self) -> Floats:
        """Equal weights of all members."""
        weights = np.zeros((self.rows, len(self.models)))
        weights[:, : len(self._problem.members)] = 1.0 / len(self._problem.members)
        return weights

    def seed(self) -> tuple[int, Floats] | None:
        """Place and weights of the first of the problem's seeds that is in the hull."""
        problem = self._problem
        space = WeightSpace("linear" if problem.base is None else "task_arithmetic", per_group=self._per_group)
        for at, recipe in enumerate(problem.seeds):
            found = space.encode(problem, recipe)
            weights = None if found is None else self._weights(found.reshape(self.rows, -1))
            if weights is not None:
                return at, weights
        return None

    def _weights(self, members: Floats) -> Floats | None:
        """The members' weights with what is left for the base, if that is a point of the hull."""
        rest = 1.0 - members.sum(axis=1)
        weights = np.zeros((self.rows, len(self.models)))
        weights[:, : members.shape[1]] = members
        if self._problem.base in self.models:
            weights[:, self.models.index(str(self._problem.base))] += rest
        elif not np.allclose(rest, 0.0):
            return None
        if (weights < -1e-9).any():
            return None
        weights = np.maximum(weights, 0.0)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _only_weights(problem: Problem, space: OperatorSpace, per_group: bool) -> OperatorSpace:
    """The space with weights from 0 to 1 as its only dimensions; other parameters have their default."""
    declared = problem.operator(space.operator)
    wanted = "expert" if declared.based else "source"
    weighs = any(one.name == WEIGHT and one.per == wanted for one in declared.parameters)
    if not weighs or WEIGHT in (*space.fixed, *space.shared):
        raise StrategyError(
            f"Frank-Wolfe searches a {WEIGHT} for each model, but the operator {space.operator!r} of strategy.merge "
            "leaves none to search; choose one that weighs its models, such as ties or dare_linear"
        )
    others = {one.name: one.default for one in declared.parameters if one.name != WEIGHT}
    only = replace(
        space,
        search={WEIGHT: (0.0, 1.0)},
        fixed=others | {name: low for name, (low, high) in space.search.items() if low == high} | space.fixed,
        whole=tuple(name for name in space.whole if name != WEIGHT) + (() if per_group else (WEIGHT,)),
    )
    searched = [name for name, (low, high) in space.search.items() if low != high and name != WEIGHT]
    if searched:
        raise StrategyError(
            f"Frank-Wolfe searches nothing but the {WEIGHT} of strategy.merge; give {searched[0]!r} a value in fixed"
        )
    only.check(problem)
    return only
