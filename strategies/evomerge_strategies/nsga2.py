"""NSGA-II over merge coefficients: compromises between several objectives by non-dominated sorting and crowding.

Source: Deb, Pratap, Agarwal, Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.pareto import crowding, ranks
from evomerge.strategy import Problem
from evomerge_strategies.batches import Results
from evomerge_strategies.genetic import Genetic, GeneticSettings
from evomerge_strategies.pareto import Front, nsga2_survivors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class NSGA2Settings(GeneticSettings):
    """NSGA-II's settings."""


class NSGA2(Genetic):
    """See the module's docstring."""

    Settings = NSGA2Settings
    needs_whole = True

    def __init__(self, settings: NSGA2Settings, problem: Problem) -> None:
        super().__init__("NSGA-II", settings, problem)

    def mates(self, kept: Results, count: int, random: np.random.Generator) -> Ints:
        """Binary tournaments: the lower front wins, in one front the less crowded (crowded-comparison operator)."""
        rank = ranks(kept.gains)
        distance = np.zeros(len(rank))
        for one in np.unique(rank):
            distance[rank == one] = crowding(kept.gains[rank == one])
        first, second = random.integers(len(rank), size=(2, count))
        better = (rank[first] < rank[second]) | ((rank[first] == rank[second]) & (distance[first] >= distance[second]))
        return np.asarray(np.where(better, first, second))

    def survivors(self, gains: Floats, front: Front, closed: int) -> Ints:
        """The next population."""
        return nsga2_survivors(gains, self._s.popsize)
