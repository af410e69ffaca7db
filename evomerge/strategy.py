"""The Strategy port: settings and a problem in, frozen states and candidates out.

The contract, which `evomerge.testing.StrategyContract` checks for any implementation:

* **Pure.** A strategy never imports torch, ray, sqlalchemy or httpx, reads no clock and keeps no generator. All that
  changes lies in one frozen state; what an instance caches beside it must be recomputable from the state alone, since
  every resume begins with a fresh instance.
* **Dense numbers.** ``ask`` numbers its candidates onward from ``state.asked``; asking the same state again gives the
  same candidates, and asking in parts gives the same as asking at once: ``ask(s, 3)`` equals ``ask(s, 2)`` then 1.
* **Less is fine.** ``ask`` returns at most ``room`` candidates and fewer when it must wait for results (between
  generations, while the seeds are out). An empty answer leaves the state as it was.
* **Every told result moves on.** ``tell`` takes each candidate that was asked exactly once, scored or failed, in the
  order the runner chose; a failed one spends budget and never enters a population.
* **Randomness** comes from `evomerge.streams.stream`, keyed by the problem's seed and the candidate's number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from evomerge.candidate import Candidate, Evaluated, Recipe
from evomerge.errors import StrategyError
from evomerge.parameter import Declaration

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Group:
    """A named part of the parameter vector with an order of its own: ``size`` coordinates."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of the study and which way is better."""

    name: str
    direction: Direction = "maximize"

    def gain(self, value: float) -> float:
        """The value turned so that larger is better."""
        return value if self.direction == "maximize" else -value


@dataclass(frozen=True)
class Problem:
    """All that a strategy may know of a study.

    ``members`` are the experts of the model pool in order; ``base`` is their common ancestor, where there is one;
    ``items`` is the number of search items (0 when the fitness scores none singly); ``objectives`` has the one
    that matters most first; ``operators`` are the declarations that the strategy's search spaces asked for.
    ``losses``, ``parts`` and ``slopes`` say what the fitness can do: a loss for each item, a score of some of the items
    only, and the loss's slopes towards the pool's models (see `evomerge.candidate.Request`). ``noisy``: repeating an
    evaluation gives another score. ``seeds`` are recipes to begin from, best first, where an earlier stage found some;
    a candidate that is made from the i-th of them, from 0, has ``-1 - i`` among its parents.
    """

    seed: int
    members: tuple[str, ...]
    groups: tuple[Group, ...]
    objectives: tuple[Objective, ...]
    items: int = 0
    base: str | None = None
    operators: tuple[Declaration, ...] = ()
    losses: bool = False
    parts: bool = False
    slopes: bool = False
    noisy: bool = False
    seeds: tuple[Recipe, ...] = ()

    def operator(self, name: str) -> Declaration:
        """The declaration of an operator.

        Raises:
            StrategyError: nobody asked for it; see `evomerge.space.port.Space.operators`.
        """
        for one in self.operators:
            if one.name == name:
                return one
        raise StrategyError(f"the operator {name!r} is not declared in this study")


class State(Protocol):
    """What the runner needs to see of any strategy's frozen state."""

    @property
    def asked(self) -> int:
        """How many candidates were asked: the next candidate's number."""

    @property
    def told(self) -> int:
        """How many of them have come back."""


S = TypeVar("S", bound=State)


class Strategy(ABC, Generic[S]):
    """A search algorithm. Construct it with its settings (a frozen dataclass) and the problem."""

    Settings: ClassVar[type]
    State: ClassVar[type]

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version may change what it asks, and which a resume therefore compares."""

    needs_whole: ClassVar[bool] = False
    """Whether it needs every candidate's score on all items (each item's, or several objectives) and no estimate."""

    @abstractmethod
    def start(self) -> S:
        """The state before anything was asked."""

    @abstractmethod
    def ask(self, state: S, room: int) -> tuple[S, tuple[Candidate, ...]]:
        """At most ``room`` new candidates, numbered onward from ``state.asked``."""

    @abstractmethod
    def tell(self, state: S, evaluated: Evaluated) -> S:
        """The state after one candidate came back."""

    @abstractmethod
    def population(self, state: S) -> tuple[int | None, ...]:
        """The candidate number in each slot of the population, ``None`` for an empty slot."""

    @abstractmethod
    def finalists(self, state: S) -> tuple[int, ...]:
        """Candidate numbers worth a look on the selection split, best on the search split first."""

    def members(self, state: S) -> tuple[str, ...] | None:
        """The pool members that a stage after this one should merge; ``None`` for all."""
        return None

    def exhausted(self, state: S) -> str | None:
        """Why the search can go no further although budget is left; ``None`` while it can."""
        return None

    def leader(self, state: S) -> tuple[float, int] | None:
        """The best value so far and its candidate, where single results do not say (see `evomerge.spending`)."""
        return None

    def diagnostics(self, state: S) -> dict[str, float]:
        """Numbers for people to watch (coverage, entropy, step size). Nothing is decided by them."""
        return {}


def require_members(problem: Problem, least: int, strategy: str) -> None:
    """Refuse a pool that is too small for ``strategy``.

    Raises:
        StrategyError: fewer than ``least`` members.
    """
    if len(problem.members) < least:
        have = ", ".join(problem.members) or "no member"
        raise StrategyError(
            f"{strategy} needs at least {least} pool members, the study has {have}; add to pool.members"
        )
