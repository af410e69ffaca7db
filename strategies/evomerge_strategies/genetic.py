"""What NSGA-II and NSGA-III share: a first generation, breeding, and no candidate twice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, require_members
from evomerge.streams import stream
from evomerge_strategies.batches import Batch, Batches, BatchesState, Results, joined
from evomerge_strategies.pareto import Front, chosen_objectives
from evomerge_strategies.seeds import given_seeds
from evomerge_strategies.variation import Variation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIES = 50
"""Times that a brood is bred on when children were there already; a space of few points then repeats itself."""


@dataclass(frozen=True)
class GeneticSettings:
    """A genetic algorithm's settings.

    Attributes:
        space: what the coefficients are.
        objectives: names of the study's objectives to search, the main one among them; default: all.
        popsize: candidates in a generation, and survivors of one.
        crossover: chance that two parents are crossed (simulated binary crossover).
        crossover_eta: its distribution index: larger keeps children nearer to their parents.
        mutation: chance that a coordinate mutates (polynomial mutation); default: one coordinate in each child.
        mutation_eta: its distribution index: larger makes smaller steps.
        score_members: score the pool's members first; those that the space can say are parents.
        front: how many results that no other dominates are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    objectives: tuple[str, ...] = ()
    popsize: Annotated[int, Gt(3)] = 20
    crossover: Annotated[float, Ge(0), Le(1)] = 0.9
    crossover_eta: Annotated[float, Ge(0)] = 20.0
    mutation: Annotated[float, Gt(0), Le(1)] | None = None
    mutation_eta: Annotated[float, Ge(0)] = 20.0
    score_members: bool = True
    front: Annotated[int, Gt(0)] = 100


class Genetic(Batches):
    """Generations: of parents and children together the best survive. Whole numbers are bred as real ones."""

    def __init__(self, name: str, settings: GeneticSettings, problem: Problem) -> None:
        require_members(problem, 1, name)
        space = settings.space
        space.check(problem)
        super().__init__(problem, space, chosen_objectives(problem, settings.objectives, name), settings.front)
        if self._size == 0:
            raise StrategyError(f"{name} has nothing to search: every parameter of its space is fixed; free one")
        self._s = settings
        self._low, self._high = space.box(problem)
        free = np.full(self._size, np.inf)
        self._variation = Variation(
            low=self._low if space.limited else -free,
            high=self._high if space.limited else free,
            span=self._high - self._low,
            crossover=settings.crossover,
            crossover_eta=settings.crossover_eta,
            mutation=1.0 / self._size if settings.mutation is None else settings.mutation,
            mutation_eta=settings.mutation_eta,
        )

    @abstractmethod
    def mates(self, kept: Results, count: int, random: np.random.Generator) -> Ints:
        """Places of ``count`` parents among the population."""

    @abstractmethod
    def survivors(self, gains: Floats, front: Front, closed: int) -> Ints:
        """Places of the next population among parents and children, by their gains, ascending."""

    def propose(self, kept: Results, closed: int, first: int) -> Batch:
        """The pool's members and random points, then children. Without two parents: random points again."""
        random = stream(self._problem.seed, first, "genetic")
        seeds = self.seeds(given_seeds(self._problem) if closed == 0 and self._s.score_members else ())
        known = {one.digest for one in seeds.recipes} | {self._recipe(x).digest for x in kept.points}
        parents = int(np.isfinite(seeds.points).all(axis=1).sum())
        room = self._s.popsize - parents
        return joined(seeds, self._brood(kept, room, known, closed, random))

    def _brood(self, kept: Results, count: int, known: set[str], closed: int, random: np.random.Generator) -> Batch:
        """``count`` candidates that are not ``known``, as far as tries suffice."""
        bred = self._bred(kept, random) if len(kept.numbers) > 1 else self._drawn(random)
        found: list[tuple[Floats, Recipe, tuple[int, ...]]] = []
        tries = TRIES * max(count, 0)
        while len(found) < count:
            x, places = next(bred)
            recipe = self._recipe(x)
            tries -= 1
            if recipe.digest not in known or tries < 0:
                known.add(recipe.digest)
                found.append((x, recipe, places))
        parents = tuple(tuple(dict.fromkeys(int(kept.numbers[at]) for at in places)) for _, _, places in found)
        generations = tuple(1 + max((int(kept.generations[at]) for at in places), default=-1) for *_, places in found)
        points = np.array([x for x, _, _ in found]).reshape(-1, self._size)
        origins = tuple("bred" if places else "random" for *_, places in found)
        return Batch(tuple(recipe for _, recipe, _ in found), points, origins, parents, generations)

    def _bred(self, kept: Results, random: np.random.Generator) -> Iterator[tuple[Floats, tuple[int, ...]]]:
        """Children and the places of their parents, without end."""
        pairs = -(-self._s.popsize // 2)
        while True:
            mothers, fathers = self.mates(kept, pairs, random), self.mates(kept, pairs, random)
            children = self._variation.children(kept.points[mothers], kept.points[fathers], random)
            for at, child in enumerate(children):
                yield child, (int(mothers[at // 2]), int(fathers[at // 2]))

    def _drawn(self, random: np.random.Generator) -> Iterator[tuple[Floats, tuple[int, ...]]]:
        """Points of the box, without end."""
        while True:
            yield random.uniform(self._low, self._high), ()

    def keep(self, results: Results, front: Front, closed: int) -> Ints:
        """The next population; a failure is never in it."""
        scored = np.flatnonzero(np.isfinite(results.gains).all(axis=1))
        return scored[self.survivors(results.gains[scored], front, closed)] if len(scored) else scored

    def _recipe(self, x: Floats) -> Recipe:
        return self._space.decode(self._problem, x)

    def population(self, state: BatchesState) -> tuple[int | None, ...]:
        """The survivors of the last generation."""
        numbers = state.kept.numbers.tolist()
        return (*numbers, *[None] * (self._s.popsize - len(numbers)))
