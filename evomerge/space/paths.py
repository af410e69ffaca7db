"""Layer paths: which layers of several models a hidden state passes, and how it is scaled on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.space.port import Dimension, Floats, Space
from evomerge.strategy import Problem

LAYER = "layer_"
"""How the groups of ``pool.grouping: layer`` are named."""


@dataclass(frozen=True)
class PathSpace(Space):
    """The data flow space of Akiba et al. (arXiv 2403.13187): a path through the layers of all members.

    All layers of the first member, then of the second, and so on, and all this ``repeats`` times, are as many places.
    A place is passed where its indicator is above 0. The start passes the first member's layers once: that model, bit
    for bit. Scaling the hidden state by s before a layer that normalises what it reads is the same as dividing by s
    what this and all later layers add, so that a path is an ordinary model, with layers that add nothing where places
    are not passed. Needs ``pool.grouping: layer``, and ``pool.layers`` that lists the layers of each member once for
    each member and repeat.

    Attributes:
        kind: ``path``.
        repeats: how often.
        scaling: of the hidden state: ``none``; a number for each ``place``; or for each ``transition`` from one layer
            to another, as published, which is the square of the number of layers.
        low: smallest factor.
        high: largest factor.
    """

    kind: Literal["path"]
    repeats: Annotated[int, Gt(0)] = 1
    scaling: Literal["none", "place", "transition"] = "place"
    low: Annotated[float, Gt(0)] = 0.5
    high: Annotated[float, Gt(0)] = 2.0

    def operators(self) -> tuple[str, ...]:
        """The one that its recipes name."""
        return ("path",)

    def check(self, problem: Problem) -> None:
        """Refuse a pool that has no such places.

        Raises:
            StrategyError: what the pool must be like; or factors without 1 between them.
        """
        if not self.low <= 1 <= self.high:
            raise StrategyError(f"space.low = {self.low:g} and space.high = {self.high:g} must have 1 between them")
        places, copies = len(_layers(problem)), len(problem.members) * self.repeats
        if places == 0 or places % copies:
            raise StrategyError(
                "a path needs pool.grouping: layer, and pool.layers with all layers of each member "
                f"{copies} times (members times repeats), such as {', '.join(['0:4'] * copies)}; the pool has {places} "
                "layers in groups of their own"
            )
        super().check(problem)

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """An indicator for each place, then the factors."""
        layers, depth = _layers(problem), self._depth(problem)
        found = [Dimension(f"use.{name}", -1.0, 1.0, 0.5 if at < depth else -0.5) for at, name in enumerate(layers)]
        if self.low < self.high:
            names = self._factors(problem)
            found += [Dimension(f"scale.{name}", self.low, self.high, 1.0, "log") for name in names]
        return tuple(found)

    def decode(self, problem: Problem, x: Sequence[float] | Floats) -> Recipe:
        """The recipe that ``x``, of ``size`` dimensions, stands for."""
        values = np.asarray(x, dtype=np.float64)
        layers, depth, members = _layers(problem), self._depth(problem), len(problem.members)
        factors = [d.natural(v) for d, v in zip(self.dimensions(problem), values, strict=True)][len(layers) :]
        scales = dict.fromkeys(layers, (0.0,) * members)
        product, before = 1.0, None
        for at in np.flatnonzero(values[: len(layers)] > 0).tolist():
            layer = at % (depth * members)
            product *= self._factor(factors, at, before, layer, depth * members)
            chosen = layer // depth
            scales[layers[at]] = tuple(1.0 / product if member == chosen else 0.0 for member in range(members))
            before = layer
        first = (1.0, *(0.0,) * (members - 1))  # what belongs to no layer
        segments = tuple(Segment(g.name, 0, g.size, scales.get(g.name, first)) for g in problem.groups)
        return Recipe("path", tuple(MEMBER + name for name in problem.members), segments)

    def _factor(self, factors: list[float], at: int, before: int | None, layer: int, layers: int) -> float:
        """By what the hidden state is multiplied before place ``at``, which has this layer."""
        if not factors:
            return 1.0
        if self.scaling == "place":
            return factors[at]
        return 1.0 if before is None else factors[before * layers + layer]

    def _factors(self, problem: Problem) -> Iterator[str]:
        if self.scaling == "place":
            yield from _layers(problem)
        if self.scaling == "transition":
            names = [f"{name}.{layer}" for name in problem.members for layer in range(self._depth(problem))]
            yield from (f"{before}.{after}" for before in names for after in names)

    def _depth(self, problem: Problem) -> int:
        """Layers of each member."""
        return len(_layers(problem)) // (len(problem.members) * self.repeats)


def _layers(problem: Problem) -> tuple[str, ...]:
    """Names of the groups that are a layer each, in order."""
    return tuple(g.name for g in problem.groups if g.name.startswith(LAYER) and g.name.removeprefix(LAYER).isdecimal())
