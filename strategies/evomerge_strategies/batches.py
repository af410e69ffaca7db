"""Strategies for several objectives that ask in batches: the next one is made when all of the last have come back.

What is kept is data: the results that the next batch is made from, and what was told of the present batch. The batch
itself follows from them, so a fresh strategy makes it again.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe
from evomerge.pareto import hypervolume
from evomerge.space import Space
from evomerge.strategy import Objective, Problem, Strategy
from evomerge_strategies.pareto import Front, enter_front

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Results:
    """Candidates that came back and that the next batch is made from.

    ``numbers`` (n,) and ``generations`` (n,) int64; ``points`` (n, dimensions) in search units and ``gains``
    (n, objectives), float64, ``-inf`` for a failure. Rows are in the order asked.
    """

    numbers: Ints
    generations: Ints
    points: Floats
    gains: Floats

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which did not fail, (n,)."""
        return np.asarray(np.isfinite(self.gains).all(axis=1))

    def take(self, places: Ints) -> Results:
        """Only these, in this order."""
        return Results(*(_frozen(a[places]) for a in (self.numbers, self.generations, self.points, self.gains)))

    def joined(self, other: Results) -> Results:
        """These, and then the others."""
        pairs = zip(
            (self.numbers, self.generations, self.points, self.gains),
            (other.numbers, other.generations, other.points, other.gains),
            strict=True,
        )
        return Results(*(_frozen(np.concatenate(pair)) for pair in pairs))


def nothing(dimensions: int, objectives: int) -> Results:
    """No results yet."""
    none = _frozen(np.zeros(0, dtype=np.int64))
    return Results(none, none, _frozen(np.zeros((0, dimensions))), _frozen(np.zeros((0, objectives))))


@dataclass(frozen=True)
class BatchesState:
    """See the module's docstring.

    Attributes:
        kept: results that the present batch was made from.
        asked: number of candidates asked.
        told: number of candidates told.
        closed: number of batches that have come back.
        current: gains of the present batch's candidates so far asked; ``nan`` is not yet told, ``-inf`` a failure.
        front: results that no other dominates.
        reference: the worst gain on each objective in the first batch, which hypervolumes are measured from.
    """

    kept: Results
    asked: int = 0
    told: int = 0
    closed: int = 0
    current: tuple[tuple[float, ...], ...] = ()
    front: Front = ()
    reference: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Candidates that are out together.

    ``points`` (n, dimensions), a row of nan where the space has no vector for a recipe; ``parents`` and ``generations``
    are empty, or as many as ``recipes``.
    """

    recipes: tuple[Recipe, ...]
    points: Floats
    origins: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...] = ()
    generations: tuple[int, ...] = ()

    def candidate(self, at: int, number: int) -> Candidate:
        """One of them, numbered."""
        parents = self.parents[at] if self.parents else ()
        return Candidate(number, self.recipes[at], parents, self.generation(at), self.origins[at])

    def generation(self, at: int) -> int:
        """The generation of one of them."""
        return self.generations[at] if self.generations else 0


def joined(one: Batch, other: Batch) -> Batch:
    """Seeds, and then others."""
    return Batch(
        one.recipes + other.recipes,
        np.concatenate([one.points, other.points]),
        one.origins + other.origins,
        one.parents + other.parents,
        (0,) * len(one.recipes) + other.generations,
    )


class Batches(Strategy[BatchesState]):
    """See the module's docstring. ``objectives`` are those searched, the study's main one first."""

    State: ClassVar[type] = BatchesState

    def __init__(self, problem: Problem, space: Space, objectives: tuple[Objective, ...], front: int) -> None:
        self._problem, self._space, self._objectives, self._front_size = problem, space, objectives, front
        self._size = space.size(problem)
        self._cached: tuple[BatchesState, Batch] | None = None  # rebuilt from any state

    @abstractmethod
    def propose(self, kept: Results, closed: int, first: int) -> Batch:
        """The batch after ``closed`` others, whose first candidate is number ``first``. Empty: there is none."""

    @abstractmethod
    def keep(self, results: Results, front: Front, closed: int) -> Ints:
        """Places of the results to keep, ascending, when batch number ``closed`` has come back."""

    def start(self) -> BatchesState:
        """Nothing asked."""
        return BatchesState(nothing(self._size, len(self._objectives)))

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: BatchesState, room: int) -> tuple[BatchesState, tuple[Candidate, ...]]:
        """What is left of the batch; nothing while a full batch is out."""
        batch, have = self._batch(state), len(state.current)
        take = min(max(room, 0), len(batch.recipes) - have)
        candidates = tuple(batch.candidate(have + i, state.asked + i) for i in range(take))
        unknown = ((math.nan,) * len(self._objectives),) * take
        return replace(state, asked=state.asked + take, current=state.current + unknown), candidates

    def _batch(self, state: BatchesState) -> Batch:
        """The batch under way: the cached one, or made again."""
        if self._cached is None or self._cached[0].kept is not state.kept or self._cached[0].closed != state.closed:
            batch = self.propose(state.kept, state.closed, state.asked - len(state.current))
            self._cached = (state, batch)
        return self._cached[1]

    def exhausted(self, state: BatchesState) -> str | None:
        """When there is no other batch."""
        return None if self._batch(state).recipes else self.finished()

    def finished(self) -> str:
        """Why there is no other batch, for people."""
        return "there is nothing left to try"

    def seeds(self, candidates: tuple[Candidate, ...]) -> Batch:
        """Recipes to begin from; a row of points is nan where the space cannot say it, or only outside its bounds."""
        low, high = self._space.box(self._problem) if self._space.limited else (-np.inf, np.inf)
        points = np.full((len(candidates), self._size), np.nan)
        for row, candidate in zip(points, candidates, strict=True):
            x = self._space.encode(self._problem, candidate.recipe)
            if x is not None and (low <= x).all() and (x <= high).all():
                row[:] = x
        return Batch(
            tuple(one.recipe for one in candidates),
            points,
            ("seed",) * len(candidates),
            tuple(one.parents for one in candidates),
        )

    def made(self, points: Floats, origin: str, generation: int = 0) -> Batch:
        """A batch of points of the space, whose candidates have no parents."""
        recipes = tuple(self._space.decode(self._problem, x) for x in points)
        count = len(recipes)
        return Batch(recipes, points, (origin,) * count, ((),) * count, (generation,) * count)

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: BatchesState, evaluated: Evaluated) -> BatchesState:
        """Note the gains; the last of a batch closes it."""
        number, score = evaluated.candidate.number, evaluated.score
        at = number - (state.asked - len(state.current))
        gains = (-math.inf,) * len(self._objectives)
        front = state.front
        if score is not None:
            gains = tuple(one.gain(score[one.name]) for one in self._objectives)
            front = enter_front(front, number, gains, self._front_size)
        current = (*state.current[:at], gains, *state.current[at + 1 :])
        state = replace(state, told=state.told + 1, current=current, front=front)
        whole = len(current) == len(self._batch(state).recipes)
        return self._closed(state) if whole and not any(math.isnan(row[0]) for row in current) else state

    def _closed(self, state: BatchesState) -> BatchesState:
        batch, first = self._batch(state), state.asked - len(state.current)
        gains = np.array(state.current)
        scored = np.isfinite(gains).all(axis=1)
        usable = np.flatnonzero(np.isfinite(batch.points).all(axis=1))
        generations = np.array([batch.generation(int(at)) for at in usable], dtype=np.int64)
        joined = state.kept.joined(Results(first + usable, generations, batch.points[usable], gains[usable]))
        kept = joined.take(self.keep(joined, state.front, state.closed))
        reference = state.reference or (tuple(gains[scored].min(axis=0).tolist()) if scored.any() else ())
        return replace(state, closed=state.closed + 1, kept=kept, current=(), reference=reference)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: BatchesState) -> tuple[int | None, ...]:
        """The front, in the order asked, in as many slots as it may have."""
        numbers = sorted(number for number, _ in state.front)
        return (*numbers, *[None] * (self._front_size - len(numbers)))

    def finalists(self, state: BatchesState) -> tuple[int, ...]:
        """The front, the best on the study's main objective first."""
        return tuple(number for number, _ in state.front)

    def diagnostics(self, state: BatchesState) -> dict[str, float]:
        """How large the front is, and its hypervolume measured from the worst of the first batch."""
        volume = 0.0
        if state.reference and state.front:
            volume = hypervolume(np.array([gains for _, gains in state.front]), np.array(state.reference))
        return {"front": float(len(state.front)), "hypervolume": volume}


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array
