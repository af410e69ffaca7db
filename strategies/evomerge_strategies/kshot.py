"""K-shot selection: score every member of the pool, then keep K of them that are good and different.

After the admission of adapters in "Leveraging Open Knowledge", which takes cosines of weights for diversity. Here it is
what a member can do that those chosen cannot, item by item: cosines also reward what is merely broken. The choice is
greedy, which for diversity alone covers at least 1 - 1/e of what the best K can do (Nemhauser, Wolsey & Fisher, 1978).
With many members, successive halving (Karnin, Koren & Somekh, ICML 2013) scores most of them on some items only. A
stage after it merges only what it kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from evomerge.candidate import WHOLE, Candidate, Evaluated, Request
from evomerge.errors import StrategyError
from evomerge.strategy import Problem, Strategy, require_members
from evomerge_strategies.seeds import member_recipe

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class KShotSettings:
    """What is kept, and how much is spent to know.

    Attributes:
        k: how many members to keep.
        diversity: how much it counts to do what others cannot: at 0 the best are kept, at 1 the first is the best and
            all others are who adds most.
        halving: where the pool has 4 ``k`` members or more, score them on few items first and drop the worse half,
            then on twice as many, and so on; the last 2 ``k`` are scored on all items.
        least_items: on so many items at least.
    """

    k: Annotated[int, Gt(0)]
    diversity: Annotated[float, Ge(0), Le(1)] = 0.5
    halving: bool = False
    least_items: Annotated[int, Gt(0)] = 16


@dataclass(frozen=True)
class Shot:
    """A member's results: its main objective (mean over the items so far, larger is better) and the round's items."""

    member: int
    number: int
    gain: float
    row: Floats


@dataclass(frozen=True)
class KShotState:
    """A round is over when all members in it (``alive``, by place in the pool) are told.

    ``first`` is the number of the round's first candidate, ``gains`` what ``alive`` had before it.
    """

    asked: int
    told: int
    alive: tuple[int, ...]
    gains: tuple[float, ...] = ()
    round: int = 0
    first: int = 0
    shots: tuple[Shot, ...] = ()


class KShot(Strategy[KShotState]):
    """See the module's docstring."""

    Settings = KShotSettings
    State = KShotState
    needs_whole = True

    def __init__(self, settings: KShotSettings, problem: Problem) -> None:
        require_members(problem, settings.k, f"kshot with k = {settings.k}")
        if settings.diversity > 0 and problem.items == 0:
            raise StrategyError(
                "kshot's diversity needs a score for each item, but this fitness returns none; set diversity: 0"
            )
        if settings.halving and not problem.parts:
            raise StrategyError("kshot's halving needs a fitness that scores some of its items only; turn halving off")
        self._s, self._problem = settings, problem
        self._bounds = _bounds(settings, problem)

    def start(self) -> KShotState:
        """All members, nothing known."""
        members = len(self._problem.members)
        return KShotState(0, 0, tuple(range(members)), (0.0,) * members)

    # --- asking and telling -----------------------------------------------------------------------------------

    def ask(self, state: KShotState, room: int) -> tuple[KShotState, tuple[Candidate, ...]]:
        """What is left of the round."""
        at = state.asked - state.first
        members = state.alive[at : at + max(room, 0)]
        asked = tuple(
            Candidate(
                number,
                member_recipe(self._problem, self._problem.members[member]),
                origin="seed",
                request=self._request(state.round),
            )
            for number, member in enumerate(members, start=state.asked)
        )
        return replace(state, asked=state.asked + len(asked)), asked

    def _request(self, at: int) -> Request:
        """Items that no round asked for yet; the last round asks for all, so that its scores are those of a study."""
        return WHOLE if at == len(self._bounds) else Request(ranges=(((0, *self._bounds)[at], self._bounds[at]),))

    def tell(self, state: KShotState, evaluated: Evaluated) -> KShotState:
        """Note the result; the last of a round drops the worse half, unless it was the last round."""
        state = replace(state, told=state.told + 1)
        if evaluated.score is not None:
            shot = self._shot(state, evaluated)
            # by member, whatever the order of telling
            state = replace(state, shots=tuple(sorted((*state.shots, shot), key=lambda one: one.member)))
        if state.told < state.first + len(state.alive) or state.round == len(self._bounds):
            return state
        last = state.round + 1 == len(self._bounds)
        keep = 2 * self._s.k if last else -(-len(state.alive) // 2)
        best = sorted(sorted(state.shots, key=lambda one: -one.gain)[:keep], key=lambda one: one.member)
        return replace(
            state,
            alive=tuple(one.member for one in best),
            gains=tuple(one.gain for one in best),
            round=state.round + 1,
            first=state.told,
            shots=(),
        )

    def _shot(self, state: KShotState, evaluated: Evaluated) -> Shot:
        score, number, main = evaluated.score, evaluated.candidate.number, self._problem.objectives[0]
        if score is None:  # the caller knows
            raise StrategyError("kshot was told a failure as a result")
        at = number - state.first
        gain = main.gain(score[main.name])
        if state.round < len(self._bounds):
            before, now = (0, *self._bounds)[state.round], self._bounds[state.round]
            gain = (state.gains[at] * before + gain * (now - before)) / now
        row = np.zeros(1) if score.items is None else score.items.astype(np.float64)
        return Shot(state.alive[at], number, gain, row)

    # --- looking ----------------------------------------------------------------------------------------------

    def _done(self, state: KShotState) -> bool:
        last = state.round == len(self._bounds) or not state.alive
        return last and state.told == state.first + len(state.alive)

    def _chosen(self, state: KShotState) -> tuple[Shot, ...]:
        """The members kept, once all are scored, best first."""
        gains, rows = np.array([one.gain for one in state.shots]), [one.row for one in state.shots]
        chosen = complementary(gains, rows, self._s.k, self._s.diversity)
        return tuple(sorted((state.shots[at] for at in chosen), key=lambda one: (-one.gain, one.member)))

    def members(self, state: KShotState) -> tuple[str, ...]:
        """Those kept, in the pool's order; before that, as many of the first."""
        kept = range(self._s.k) if not self._done(state) else sorted(one.member for one in self._chosen(state))
        return tuple(self._problem.members[member] for member in kept)

    def population(self, state: KShotState) -> tuple[int | None, ...]:
        """The round's candidates by their places in the pool; in the end those kept."""
        slots: list[int | None] = [None] * len(self._problem.members)
        for one in self._chosen(state) if self._done(state) else state.shots:
            slots[one.member] = one.number
        return tuple(slots)

    def finalists(self, state: KShotState) -> tuple[int, ...]:
        """Those kept, best first; before that, those scored on all items."""
        if self._done(state):
            return tuple(one.number for one in self._chosen(state))
        whole = state.shots if state.round == len(self._bounds) else ()
        return tuple(one.number for one in sorted(whole, key=lambda one: (-one.gain, one.member)))

    def exhausted(self, state: KShotState) -> str | None:
        """Every member has been scored."""
        if not self._done(state):
            return None
        return f"{len(self._chosen(state))} of {len(self._problem.members)} members are chosen"

    def diagnostics(self, state: KShotState) -> dict[str, float]:
        """The round, counted from 1, and how many members are in it."""
        return {"round": state.round + 1.0, "alive": float(len(state.alive))}


def _bounds(settings: KShotSettings, problem: Problem) -> tuple[int, ...]:
    """On how many items, from the first on, members are known after each round but the last, which has all."""
    rounds = int(math.log2(len(problem.members) / (2 * settings.k))) if settings.halving else 0
    halves = (max(problem.items >> (rounds + 1 - at), settings.least_items) for at in range(rounds))
    return tuple(sorted({items for items in halves if items < problem.items}))


def complementary(gains: Floats, rows: list[Floats], k: int, diversity: float) -> tuple[int, ...]:
    """At most ``k`` places, greedily: the best first, then always who has the most of both, each scaled to 0..1.

    That is ``(1 - diversity) gain + diversity mean_j max(row_j - best_j, 0)``, where ``best_j`` is the best score of
    those chosen on item j. The earlier of equals first.

    Args:
        gains: of every member, (n,).
        rows: scores of items, larger is better, one row for each member.
        k: how many.
        diversity: in 0..1.
    """
    if not gains.size:
        return ()
    good, table = _scaled(gains - gains.min()), np.array(rows)
    chosen = [int(np.argmax(good))]
    while len(chosen) < min(k, gains.size):
        adds = np.maximum(table - table[chosen].max(axis=0), 0.0).mean(axis=1)
        both = (1 - diversity) * good + diversity * _scaled(adds)
        both[chosen] = -np.inf
        chosen.append(int(np.argmax(both)))
    return tuple(chosen)


def _scaled(values: Floats) -> Floats:
    """Divided by the largest, if that is above 0."""
    largest = values.max()
    return values / largest if largest > 0 else values
