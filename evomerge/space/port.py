"""The Space port: from a vector of plain numbers to a recipe, so that an optimizer never knows what x means.

A space is a frozen dataclass that a strategy's settings hold, told apart by ``kind`` in a study file; all methods are
pure. A vector is in *search units*: logarithms where a dimension is of kind ``log``, and real numbers that `decode`
rounds where it is ``integer``, so that any optimizer of real numbers can work in the box of `Space.box`. One that
knows whole numbers can look at `Dimension.kind`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.errors import StrategyError
from evomerge.strategy import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number of a space's vector. ``low``, ``high`` and ``default`` are as people write them.

    Attributes:
        name: for people and for libraries that name parameters; unique in its space.
        low: smallest value.
        high: largest value.
        default: a sensible place to start.
        kind: how to step: evenly, by factors (``low`` > 0), or over whole numbers.
    """

    name: str
    low: float
    high: float
    default: float
    kind: Literal["float", "log", "integer"] = "float"

    def inner(self, value: float) -> float:
        """A value in search units."""
        return math.log(value) if self.kind == "log" else value

    def natural(self, x: float) -> float:
        """What a number in search units stands for, inside the bounds."""
        value = math.exp(x) if self.kind == "log" else float(round(x)) if self.kind == "integer" else x
        return min(max(value, self.low), self.high)

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest number in search units. Each whole number has a stretch of the same length."""
        if self.kind == "integer":
            return self.low - 0.5, self.high + 0.5
        return self.inner(self.low), self.inner(self.high)

    def check(self) -> None:
        """Refuse bounds that enclose nothing.

        Raises:
            StrategyError: naming the dimension and its bounds.
        """
        finite = math.isfinite(self.low) and math.isfinite(self.high)
        if not finite or not self.low < self.high:
            raise StrategyError(f"{self.name}: low = {self.low:g} is not below high = {self.high:g}")
        if self.kind == "log" and self.low <= 0:
            raise StrategyError(f"{self.name}: low = {self.low:g}, but what is searched by factors must be above 0")


class Space(ABC):
    """See the module's docstring. Dimensions are listed group by group in the problem's order."""

    @property
    def limited(self) -> bool:
        """Whether vectors must stay in the box; if not, the box only says where to look first."""
        return True

    def check(self, problem: Problem) -> None:
        """Refuse a space that this problem cannot have.

        Raises:
            StrategyError: naming what does not fit.
        """
        for dimension in self.dimensions(problem):
            dimension.check()

    @abstractmethod
    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """What each number of a vector is."""

    @abstractmethod
    def decode(self, problem: Problem, x: Sequence[float] | Floats) -> Recipe:
        """The recipe that ``x``, in search units, stands for."""

    def encode(self, problem: Problem, recipe: Recipe) -> Floats | None:
        """A vector whose recipe does what ``recipe`` does, or None where the space has none."""
        return None

    def operators(self) -> tuple[str, ...]:
        """Operators whose declarations `Problem.operators` must hold for this space."""
        return ()

    def size(self, problem: Problem) -> int:
        """Number of dimensions."""
        return len(self.dimensions(problem))

    def box(self, problem: Problem) -> tuple[Floats, Floats]:
        """Smallest and largest value of every dimension, in search units: two vectors of `size`."""
        spans = np.array([dimension.span for dimension in self.dimensions(problem)], dtype=np.float64).reshape(-1, 2)
        return spans[:, 0].copy(), spans[:, 1].copy()

    def start(self, problem: Problem) -> Floats:
        """Where a search may begin, in search units: every dimension's default."""
        return np.array([dimension.inner(dimension.default) for dimension in self.dimensions(problem)])
