"""The parameters of any operator as a search space: weights and densities of TIES, t of SLERP, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import RecipeError, StrategyError, nearest
from evomerge.parameter import Declaration, Parameter
from evomerge.space.port import Dimension, Floats, Space
from evomerge.strategy import Problem


@dataclass(frozen=True)
class OperatorSpace(Space):
    """What an operator declares as its parameters, over the whole pool.

    Attributes:
        kind: ``operator``.
        operator: its name, such as ``dare_ties``; see the list of operators.
        options: the operator's options.
        search: ``[lowest, highest]`` of a parameter, in place of what the operator declares.
        fixed: parameters that are not searched, with their values.
        whole: parameters with one value for the whole model instead of one per parameter group.
        shared: parameters with one value for all members instead of one each.
    """

    kind: Literal["operator"]
    operator: str
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    search: dict[str, tuple[float, float]] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def operators(self) -> tuple[str, ...]:
        """The one it is made of."""
        return (self.operator,)

    def check(self, problem: Problem) -> None:
        """Refuse what the operator does not have or the pool cannot give.

        Raises:
            StrategyError: naming the parameter, or how many models the operator takes.
        """
        declared, sources = problem.operator(self.operator), len(self._sources(problem))
        known = [parameter.name for parameter in declared.parameters]
        for key in ("search", "fixed", "whole", "shared"):
            for name in getattr(self, key):
                if name not in known:
                    has = ", ".join(known) or "no parameter"
                    raise StrategyError(
                        f"space.{key} names {name!r}, but the operator {self.operator!r} has "
                        f"{has}; {nearest(name, known)}correct it"
                    )
        if both := sorted(self.search.keys() & self.fixed.keys()):
            raise StrategyError(f"space.search and space.fixed both name {both[0]!r}; remove one")
        if sources < declared.least or (declared.most is not None and sources > declared.most):
            most = declared.most or "any number of"
            raise StrategyError(
                f"the operator {self.operator!r} takes {declared.least} to {most} models, the pool gives {sources}"
            )
        self._check_values(declared)
        super().check(problem)

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """Parameter by parameter; within one, group by group (unless ``whole``), member by member (unless ``shared``).

        Parameters fixed, or whose bounds are equal, are none.
        """
        return tuple(dimension for one in self._plan(problem) for dimension in one.dimensions)

    def decode(self, problem: Problem, x: Sequence[float] | Floats) -> Recipe:
        """The recipe that ``x``, of ``size`` dimensions, stands for."""
        values, at = np.asarray(x, dtype=np.float64), 0
        tables = []
        for one in self._plan(problem):
            searched = len(one.dimensions)
            numbers = [d.natural(v) for d, v in zip(one.dimensions, values[at : at + searched], strict=True)]
            tables.append(one.spread(numbers))
            at += searched
        rows = np.concatenate(tables, axis=1)
        segments = tuple(
            Segment(group.name, 0, group.size, tuple(row.tolist()))
            for group, row in zip(problem.groups, rows, strict=True)
        )
        return Recipe(self.operator, self._sources(problem), segments, tuple(sorted(self.options.items())))

    def encode(self, problem: Problem, recipe: Recipe) -> Floats | None:
        """The vector of a recipe that this space could have made; None for any other."""
        same = (recipe.operator, recipe.sources, recipe.options) == (
            self.operator,
            self._sources(problem),
            tuple(sorted(self.options.items())),
        )
        ranges = [(segment.group, segment.start, segment.stop) for segment in recipe.segments]
        if not same or recipe.noise is not None or ranges != [(g.name, 0, g.size) for g in problem.groups]:
            return None
        rows = np.array([segment.values for segment in recipe.segments])
        found, at = [], 0
        for one in self._plan(problem):
            table = rows[:, at : at + one.count]
            if not (table == one.spread(one.gather(table))).all():
                return None
            found += [d.inner(v) for d, v in zip(one.dimensions, one.gather(table), strict=False)]
            at += one.count
        return np.array(found)

    def _sources(self, problem: Problem) -> tuple[str, ...]:
        members = tuple(MEMBER + name for name in problem.members)
        if not problem.operator(self.operator).based:
            return members
        if problem.base is None:
            raise StrategyError(
                f"the operator {self.operator!r} needs pool.base, the common ancestor of the members; give it"
            )
        return (MEMBER + problem.base, *members)

    def _check_values(self, declared: Declaration) -> None:
        for parameter in declared.parameters:
            low, high = self.search.get(parameter.name, (parameter.low, parameter.high))
            for value in (self.fixed[parameter.name],) if parameter.name in self.fixed else (low, high):
                try:
                    parameter.check(value)
                except RecipeError as error:
                    raise StrategyError(f"space of the operator {self.operator!r}: {error}") from error

    def _plan(self, problem: Problem) -> Iterator[_Table]:
        sources = self._sources(problem)
        for parameter in problem.operator(self.operator).parameters:
            count = parameter.count(len(sources))
            low, high = self.search.get(parameter.name, (parameter.low, parameter.high))
            fixed = self.fixed.get(parameter.name, low if low == high else None)
            groups = () if parameter.name in self.whole else tuple(group.name for group in problem.groups)
            owners = tuple(source.removeprefix(MEMBER) for source in sources[len(sources) - count :])
            single = parameter.per == "segment" or parameter.name in self.shared
            of = () if single else owners
            dimensions = () if fixed is not None else _dimensions(parameter, low, high, groups, of)
            yield _Table(len(problem.groups), count, bool(groups), single, fixed, dimensions)


def _dimensions(
    parameter: Parameter, low: float, high: float, groups: tuple[str, ...], owners: tuple[str, ...]
) -> tuple[Dimension, ...]:
    default = min(max(parameter.default, low), high)
    return tuple(
        Dimension(".".join(filter(None, (parameter.name, group, owner))), low, high, default, parameter.kind)
        for group in groups or ("",)
        for owner in owners or ("",)
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """One parameter's values by group and source, (groups, count), and which of them are dimensions."""

    groups: int
    count: int
    per_group: bool
    single: bool
    fixed: float | None
    dimensions: tuple[Dimension, ...]

    def spread(self, numbers: Sequence[float]) -> Floats:
        """The whole table."""
        if self.fixed is not None:
            return np.full((self.groups, self.count), self.fixed)
        shape = (self.groups if self.per_group else 1, 1 if self.single else self.count)
        return np.broadcast_to(np.reshape(numbers, shape), (self.groups, self.count)).astype(np.float64)

    def gather(self, table: Floats) -> list[float]:
        """The numbers that `spread` would need to make this table."""
        rows = table if self.per_group else table[:1]
        return [float(value) for value in (rows[:, :1] if self.single else rows).ravel()]
