"""Optimizers of other libraries, made exact by replay.

A library's object is never saved. What is kept is what it was asked and told, in that order; a fresh object that is
asked and told the same continues bit for bit, provided that its random numbers come from a seed of ours. It must also
propose again what it proposed then: whatever does not is found out and refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.space import AnySpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.seeds import given_seeds
from evomerge_strategies.threads import one_thread

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """What was told of a candidate: a loss per searched objective (smaller is better), none at all for a failure."""

    number: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class LibraryState:
    """All that the library was asked and told, in order.

    Attributes:
        asked: number of candidates asked.
        told: number of candidates told.
        after: for each candidate, how many results the library knew when it was asked.
        vectors: its proposals in search units, one for each candidate that is not a seed.
        results: in the order told.
        hall: the best on the main objective, best first.
        front: results that no other beats on every searched objective; kept where there are several objectives.
    """

    asked: int = 0
    told: int = 0
    after: tuple[int, ...] = ()
    vectors: tuple[Floats, ...] = ()
    results: tuple[Result, ...] = ()
    hall: Hall = ()
    front: tuple[Result, ...] = ()


class Engine(ABC):
    """A library's optimizer. Vectors are in search units (see `evomerge.space.Space`)."""

    @abstractmethod
    def propose(self, number: int) -> Floats:
        """A new vector for candidate ``number``."""

    @abstractmethod
    def offer(self, number: int, x: Floats) -> None:
        """Candidate ``number`` is ``x``, which the optimizer did not propose itself."""

    @abstractmethod
    def tell(self, result: Result) -> None:
        """A candidate came back."""

    def recall(self, number: int, x: Floats) -> Floats:
        """What it proposes as candidate ``number`` in a replay; ``x`` is what it proposed then."""
        del x
        return self.propose(number)

    @property
    def origin(self) -> str:
        """Who makes the present proposals, for people."""
        return ""


class LibraryStrategy(Strategy[LibraryState]):
    """A strategy whose proposals come from a library's optimizer, one candidate at a time.

    Args:
        name: the strategy's name, for people.
        space: where to search.
        problem: the study's.
        score_members: score the pool's members, and what an earlier stage found, first.
        hall_of_fame: how many of the best are remembered.
        objectives: how many of the study's objectives are searched, the first ones.
        most: how many candidates may be out at once; None: any number.
    """

    State = LibraryState

    def __init__(
        self,
        name: str,
        space: AnySpace,
        problem: Problem,
        *,
        score_members: bool,
        hall_of_fame: int,
        objectives: int = 1,
        most: int | None = None,
    ) -> None:
        require_members(problem, 1, name)
        space.check(problem)
        if space.size(problem) == 0:
            raise StrategyError(f"{name} has nothing to search: every parameter of its space is fixed; free one")
        self._name, self._space, self._problem, self._hall, self._most = name, space, problem, hall_of_fame, most
        self._objectives = problem.objectives[:objectives]
        self._seeds = given_seeds(problem) if score_members else ()
        self._replay: _Replay | None = None  # a cache: rebuilt from any state

    @abstractmethod
    def _engine(self) -> Engine:
        """A fresh optimizer."""

    def start(self) -> LibraryState:
        """Nothing asked."""
        return LibraryState()

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: LibraryState, room: int) -> tuple[LibraryState, tuple[Candidate, ...]]:
        """The seeds, then proposals; none while as many are out as the optimizer can have."""
        candidates: list[Candidate] = []
        vectors: list[Floats] = []
        for number in range(state.asked, state.asked + max(room, 0)):
            if number < len(self._seeds):
                candidates.append(self._seeds[number])
            elif self._most is not None and number - state.told >= self._most:
                break
            else:
                x, origin = self._propose(self._grown(state, candidates, vectors), number)
                vectors.append(x)
                candidates.append(Candidate(number, self._space.decode(self._problem, x), origin=origin))
        return self._grown(state, candidates, vectors), tuple(candidates)

    @staticmethod
    def _grown(state: LibraryState, candidates: list[Candidate], vectors: list[Floats]) -> LibraryState:
        """The state in which these were asked as well."""
        if not candidates:
            return state
        after = (*state.after, *[len(state.results)] * len(candidates))
        return replace(state, asked=state.asked + len(candidates), after=after, vectors=(*state.vectors, *vectors))

    def _propose(self, state: LibraryState, number: int) -> tuple[Floats, str]:
        with one_thread():
            if self._replay is None or not self._replay.begins(state):
                self._replay = _Replay(self._engine(), self._name, self._offers())
            self._replay.follow(state)
            return self._replay.propose(number, len(state.results))

    def _offers(self) -> tuple[Floats | None, ...]:
        """The seeds as vectors, where the space has such and they lie within its bounds."""
        low, high = self._space.box(self._problem)
        vectors = [self._space.encode(self._problem, seed.recipe) for seed in self._seeds]
        return tuple(x if x is not None and (low <= x).all() and (x <= high).all() else None for x in vectors)

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: LibraryState, evaluated: Evaluated) -> LibraryState:
        """Note what came back."""
        score = evaluated.score
        losses = () if score is None else tuple(-one.gain(score[one.name]) for one in self._objectives)
        result = Result(evaluated.candidate.number, losses)
        return replace(
            state,
            told=state.told + 1,
            results=(*state.results, result),
            hall=enter(state.hall, evaluated, self._problem.objectives[0], self._hall),
            front=_front(state.front, result) if len(self._objectives) > 1 else (),
        )

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: LibraryState) -> tuple[int | None, ...]:
        """The front of several objectives, or the best ones told."""
        return self.finalists(state)

    def finalists(self, state: LibraryState) -> tuple[int, ...]:
        """The front of several objectives, or the best ones told; the best on the main objective first."""
        front = sorted(state.front, key=lambda result: (result.losses, result.number))
        return tuple(result.number for result in front) or tuple(number for _, number in state.hall)

    def diagnostics(self, state: LibraryState) -> dict[str, float]:
        """How many failed, and how large the front is."""
        failed = sum(not result.losses for result in state.results)
        return {"failed": float(failed)} | ({"front": float(len(state.front))} if state.front else {})


class _Replay:
    """An optimizer and the part of a log that it was moved along."""

    def __init__(self, engine: Engine, name: str, offers: tuple[Floats | None, ...]) -> None:
        self._optimizer, self._name, self._offers = engine, name, offers
        self._after: list[int] = []
        self._results: tuple[Result, ...] = ()

    def begins(self, state: LibraryState) -> bool:
        """Whether this optimizer was asked and told a beginning of this very log."""
        asked, told = len(self._after), len(self._results)
        same = tuple(self._after) == state.after[:asked] and self._results == state.results[:told]
        return same and all(after >= told for after in state.after[asked : asked + 1])

    def follow(self, state: LibraryState) -> None:
        """Ask and tell it the rest of the log.

        Raises:
            StrategyError: it proposes something else than it did then.
        """
        for number in range(len(self._after), state.asked):
            self._tell(state.results[: state.after[number]])
            if number < len(self._offers):
                self._offer(number)
            else:
                self._recall(number, state.vectors[number - len(self._offers)])
            self._after.append(state.after[number])
        self._tell(state.results)

    def propose(self, number: int, after: int) -> tuple[Floats, str]:
        """A new proposal, and who made it."""
        x = self._optimizer.propose(number)
        x.flags.writeable = False
        self._after.append(after)
        return x, self._optimizer.origin

    def _tell(self, results: tuple[Result, ...]) -> None:
        for result in results[len(self._results) :]:
            self._optimizer.tell(result)
        self._results = results if len(results) > len(self._results) else self._results

    def _offer(self, number: int) -> None:
        x = self._offers[number]
        if x is not None:
            self._optimizer.offer(number, x)

    def _recall(self, number: int, then: Floats) -> None:
        if not np.array_equal(self._optimizer.recall(number, then), then):
            raise StrategyError(
                f"{self._name} proposes another candidate {number} than before although it was asked and told the "
                "same; resume with the library versions that the study began with, or use another optimizer"
            )


def _front(front: tuple[Result, ...], new: Result) -> tuple[Result, ...]:
    """The non-dominated results when ``new`` is there too; of equals the earlier stays."""

    def beats(one: Result, other: Result) -> bool:
        return all(a <= b for a, b in zip(one.losses, other.losses, strict=True))

    if not new.losses or any(beats(old, new) for old in front):
        return front
    return (*(old for old in front if not beats(new, old)), new)
