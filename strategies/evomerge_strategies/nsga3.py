"""NSGA-III over merge coefficients: for three objectives and more, spread along reference directions.

Source: Deb and Jain, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based Nondominated
Sorting Approach, Part I", IEEE Transactions on Evolutionary Computation 18 (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.errors import StrategyError
from evomerge.strategy import Problem
from evomerge.streams import stream
from evomerge_strategies.batches import Results
from evomerge_strategies.genetic import Genetic, GeneticSettings
from evomerge_strategies.pareto import Front, nsga3_survivors, reference_directions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class NSGA3Settings(GeneticSettings):
    """NSGA-III's settings.

    Attributes:
        directions: at most so many reference directions; default: as many as the population has slots.
    """

    crossover: Annotated[float, Ge(0)] = 1.0
    crossover_eta: Annotated[float, Ge(0)] = 30.0
    directions: Annotated[int, Gt(1)] | None = None


class NSGA3(Genetic):
    """See the module's docstring. Mates are drawn evenly, as published: every survivor counts the same."""

    Settings = NSGA3Settings
    needs_whole = True

    def __init__(self, settings: NSGA3Settings, problem: Problem) -> None:
        super().__init__("NSGA-III", settings, problem)
        count = settings.directions or settings.popsize
        if count > settings.popsize:
            raise StrategyError(
                f"directions: {count} do not fit into a population of {settings.popsize}; raise popsize or lower it"
            )
        self._directions = reference_directions(len(self._objectives), count)

    def mates(self, kept: Results, count: int, random: np.random.Generator) -> Ints:
        """Any of the population."""
        return random.integers(len(kept.numbers), size=count)

    def survivors(self, gains: Floats, front: Front, closed: int) -> Ints:
        """The next population."""
        # the front has the best ever seen on each objective, save where it was full
        best = np.array([one for _, one in front]).max(axis=0)
        random = stream(self._problem.seed, closed, "nsga3:niches")
        return nsga3_survivors(gains, self._s.popsize, self._directions, np.maximum(best, gains.max(axis=0)), random)
