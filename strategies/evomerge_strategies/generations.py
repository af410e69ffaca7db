"""Strategies that work in generations, made exact by replay: what is kept is what they were told, never an object."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe
from evomerge.strategy import Problem, Strategy
from evomerge_strategies.hall import Hall, insert

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GenerationsState:
    """All that was told: the losses of complete ``generations``, and of the ``current`` one.

    A loss is the main objective turned so that smaller is better; ``nan`` is not yet told, ``inf`` a failure.
    """

    asked: int = 0
    told: int = 0
    generations: tuple[Floats, ...] = ()
    current: tuple[float, ...] = ()
    hall: Hall = ()


class Searcher(ABC):
    """An optimizer that was told some generations and has the next one ready. What it does follows from them alone."""

    origin: str
    """The candidates' word for how they came about."""

    seed: int | None = None
    """The place among the problem's ``seeds`` of the recipe that the first generation lies around."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many candidates the next generation has; 0 when `finished`."""

    @property
    @abstractmethod
    def finished(self) -> str | None:
        """Why there is no next generation."""

    @abstractmethod
    def recipe(self, at: int) -> Recipe:
        """A candidate of the next generation."""

    @abstractmethod
    def tell(self, losses: Floats) -> None:
        """Move on by a generation."""

    @abstractmethod
    def diagnostics(self) -> dict[str, float]:
        """Numbers for people to watch."""

    def value(self, at: int, loss: float) -> float:
        """What finalists are compared by: the loss of a candidate of the next generation, or more."""
        return loss


class Generational(Strategy[GenerationsState]):
    """Asks ``seeds``, then generation after generation of a `Searcher`; waits while a full generation is out."""

    State: ClassVar[type] = GenerationsState

    def __init__(self, problem: Problem, seeds: tuple[Candidate, ...], hall_of_fame: int) -> None:
        self._problem, self._seeds, self._hall_of_fame = problem, seeds, hall_of_fame
        self._cached: tuple[Searcher, tuple[Floats, ...]] | None = None  # rebuilt from any state

    @abstractmethod
    def searcher(self) -> Searcher:
        """One that was told nothing."""

    def start(self) -> GenerationsState:
        """Nothing asked."""
        return GenerationsState()

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: GenerationsState, room: int) -> tuple[GenerationsState, tuple[Candidate, ...]]:
        """What is left of the seeds, then of the generation."""
        candidates: list[Candidate] = []
        current = state.current
        for number in range(state.asked, state.asked + max(room, 0)):
            if number < len(self._seeds):
                candidates.append(self._seeds[number])
                continue
            searcher = self._at(state.generations)
            if len(current) == searcher.size:
                break
            recipe, generation = searcher.recipe(len(current)), 1 + len(state.generations)
            parents = () if state.generations or searcher.seed is None else (-1 - searcher.seed,)
            candidates.append(Candidate(number, recipe, parents, generation, searcher.origin))
            current = (*current, math.nan)
        return replace(state, asked=state.asked + len(candidates), current=current), tuple(candidates)

    def _at(self, generations: tuple[Floats, ...]) -> Searcher:
        """A searcher that was told exactly these generations: the cached one moved on, or a fresh one replayed."""
        if self._cached is None or not _begins(generations, self._cached[1]):
            self._cached = (self.searcher(), ())
        searcher, told = self._cached
        for losses in generations[len(told) :]:
            searcher.tell(losses)
        self._cached = (searcher, generations)
        return searcher

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: GenerationsState, evaluated: Evaluated) -> GenerationsState:
        """Note the loss; the last of a generation closes it."""
        number, objective = evaluated.candidate.number, self._problem.objectives[0]
        loss = math.inf if evaluated.score is None else -objective.gain(evaluated.score[objective.name])
        seeded = number < len(self._seeds)
        at = number - (state.asked - len(state.current))
        searcher = self._at(state.generations)
        if evaluated.score is not None:
            value = loss if seeded else searcher.value(at, loss)
            state = replace(state, hall=insert(state.hall, value, number, self._hall_of_fame))
        state = replace(state, told=state.told + 1)
        if seeded:
            return state
        current = (*state.current[:at], loss, *state.current[at + 1 :])
        if len(current) == searcher.size and not any(math.isnan(one) for one in current):
            closed = np.array(current)
            closed.flags.writeable = False
            return replace(state, generations=(*state.generations, closed), current=())
        return replace(state, current=current)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: GenerationsState) -> tuple[int | None, ...]:
        """The numbers of the last complete generation; slots that an earlier and larger one had are empty."""
        if not state.generations:
            return ()
        stop, size = state.asked - len(state.current), len(state.generations[-1])
        empty = max(map(len, state.generations)) - size
        return (*range(stop - size, stop), *(None,) * empty)

    def finalists(self, state: GenerationsState) -> tuple[int, ...]:
        """The best ones told, best first."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: GenerationsState) -> str | None:
        """As the searcher says."""
        return self._at(state.generations).finished

    def diagnostics(self, state: GenerationsState) -> dict[str, float]:
        """The searcher's."""
        return self._at(state.generations).diagnostics()


def _begins(whole: tuple[Floats, ...], part: tuple[Floats, ...]) -> bool:
    """Whether ``part`` is a beginning of ``whole``: these very arrays."""
    return len(part) <= len(whole) and all(mine is theirs for mine, theirs in zip(part, whole, strict=False))
