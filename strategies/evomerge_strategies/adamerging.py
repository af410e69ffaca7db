"""AdaMerging: merge coefficients learned by gradient descent (Yang et al., arXiv 2310.02575, ICLR 2024).

``theta^g = theta_0^g + sum_i lambda_i^g tau_i^g`` for each parameter group g (layer-wise) or one lambda for all of them
(task-wise). The derivative of a loss by lambda_i^g is ``<gradient, tau_i>`` over the group, so that one candidate's
`Score.slopes` are all that a step of Adam (Kingma & Ba, arXiv 1412.6980) needs, and no weight is ever trained. Which
loss it is, the fitness says: its labelled loss, or the entropy of its predictions, which needs no labels. Also Expert
Merging's coefficients, which a sigmoid keeps within 0 and 1 and a penalty near one another; of its loss, which looks at
hidden states, there is nothing here.

The steps end wherever the loss leads, which for entropy may be confident and wrong: finalists are chosen by the study's
objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Request
from evomerge.errors import StrategyError
from evomerge.space import WeightSpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge_strategies.hall import Hall, enter

Floats = NDArray[np.float64]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own constants."""

FAILURES = 5
"""So many steps one after the other that cannot be scored, each half as long as the last, end the search."""

_EDGE = 1e-3  # how near to 0 or 1 a start may be where a sigmoid or softmax never gets there


@dataclass(frozen=True)
class AdaMergingSettings:
    """The settings; published are ``learning_rate`` 0.001, ``start`` 0.3 and a thousand steps.

    Attributes:
        coefficients: ``free`` numbers; ``clamped`` to 0..1 after each step; a ``sigmoid`` of free numbers (Expert
            Merging); or ``softmax``, weights of the members themselves that sum to one in each group, without a base.
        per_group: coefficients for each parameter group; off: one for each member.
        learning_rate: Adam's, of the free numbers.
        start: every coefficient at first, unless an earlier stage found a recipe with such coefficients; ``softmax``
            begins with the mean.
        batch: items whose loss a step follows, in turn; a step on all follows when all had their turn. Default: all.
        agreement: a penalty on the mean distance of coefficients from their member's mean over the groups.
        steps: so many at most.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    coefficients: Literal["free", "clamped", "sigmoid", "softmax"] = "free"
    per_group: bool = True
    learning_rate: Annotated[float, Gt(0)] = 0.02
    start: float = 0.3
    batch: Annotated[int, Gt(0)] | None = None
    agreement: Annotated[float, Ge(0)] = 0.0
    steps: Annotated[int, Gt(0)] | None = None
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class Place:
    """Where the descent is: free numbers, (groups or 1, members), and Adam's two moments after ``steps`` steps."""

    free: Floats
    first: Floats
    second: Floats
    steps: int = 0


@dataclass(frozen=True)
class AdaMergingState:
    """``at`` is where the next candidate is; ``before`` where the last one was that could be scored, ``parent``.

    ``failures`` counts those since that could not.
    """

    asked: int
    told: int
    at: Place
    before: Place
    parent: int | None = None
    generation: int = 0
    failures: int = 0
    hall: Hall = ()


class AdaMerging(Strategy[AdaMergingState]):
    """See the module's docstring."""

    Settings = AdaMergingSettings
    State = AdaMergingState

    def __init__(self, settings: AdaMergingSettings, problem: Problem) -> None:
        require_members(problem, 2 if settings.coefficients == "softmax" else 1, "adamerging")
        _check(settings, problem)
        self._s, self._problem = settings, problem
        kind: Literal["linear", "task_arithmetic"] = (
            "linear" if settings.coefficients == "softmax" else "task_arithmetic"
        )
        self._space = WeightSpace(kind, bounded=False, per_group=settings.per_group)

    def start(self) -> AdaMergingState:
        """At the first given recipe that has such coefficients, or where the settings say."""
        free, parent = self._beginning()
        place = Place(free, np.zeros_like(free), np.zeros_like(free))
        return AdaMergingState(0, 0, place, place, parent)

    def _beginning(self) -> tuple[Floats, int | None]:
        shape = (len(self._problem.groups) if self._s.per_group else 1, len(self._problem.members))
        for at, recipe in enumerate(self._problem.seeds):
            found = self._space.encode(self._problem, recipe)
            if found is not None:
                return self._free(found.reshape(shape)), -1 - at
        uniform = 1 / shape[1] if self._s.coefficients == "softmax" else self._s.start
        return self._free(np.full(shape, uniform)), None

    # --- asking and telling -----------------------------------------------------------------------------------

    def ask(self, state: AdaMergingState, room: int) -> tuple[AdaMergingState, tuple[Candidate, ...]]:
        """One candidate at a time: the next step needs its slopes."""
        if room <= 0 or state.asked > state.told or self.exhausted(state):
            return state, ()
        one = Candidate(
            number=state.asked,
            recipe=self._space.decode(self._problem, self._coefficients(state.at.free).ravel()),
            parents=() if state.parent is None else (state.parent,),
            generation=state.generation,
            origin="adamerging",
            request=Request(self._ranges(state.at.steps), slopes=True),
        )
        return replace(state, asked=state.asked + 1), (one,)

    def _ranges(self, step: int) -> tuple[tuple[int, int], ...] | None:
        """The items of a step, batch after batch; after the last of them, all."""
        batch, items = self._s.batch, self._problem.items
        if batch is None or batch >= items:
            return None
        at = step % (-(-items // batch) + 1) * batch
        return ((at, min(at + batch, items)),) if at < items else None

    def tell(self, state: AdaMergingState, evaluated: Evaluated) -> AdaMergingState:
        """A step of Adam; after a failure, half of the way from where all was well."""
        state, one = replace(state, told=state.told + 1), evaluated.candidate
        if evaluated.score is None:
            half = replace(state.at, free=(state.at.free + state.before.free) / 2)
            return replace(state, at=half, failures=state.failures + 1)
        if evaluated.score.slopes is None:
            raise StrategyError("adamerging asked for slopes of the loss and was told a score without")
        hall = state.hall
        if one.request.ranges is None:
            hall = enter(hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
        after = self._stepped(state.at, self._gradient(state.at.free, evaluated.score.slopes))
        return replace(
            state, at=after, before=state.at, parent=one.number, generation=1 + one.generation, failures=0, hall=hall
        )

    def _stepped(self, at: Place, gradient: Floats) -> Place:
        """Adam, Algorithm 1."""
        t = at.steps + 1
        first = BETA_1 * at.first + (1 - BETA_1) * gradient
        second = BETA_2 * at.second + (1 - BETA_2) * gradient**2
        step = first / (1 - BETA_1**t) / (np.sqrt(second / (1 - BETA_2**t)) + EPSILON)
        free = at.free - self._s.learning_rate * step
        return Place(np.clip(free, 0, 1) if self._s.coefficients == "clamped" else free, first, second, t)

    # --- coefficients -----------------------------------------------------------------------------------------

    def _coefficients(self, free: Floats) -> Floats:
        """What the free numbers stand for."""
        if self._s.coefficients == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-free)))
        if self._s.coefficients == "softmax":
            powers = np.exp(free - free.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return free

    def _free(self, coefficients: Floats) -> Floats:
        """Free numbers that stand for the coefficients, or for some near them."""
        if self._s.coefficients == "sigmoid":
            inside = np.clip(coefficients, _EDGE, 1 - _EDGE)
            return np.asarray(np.log(inside) - np.log1p(-inside))
        if self._s.coefficients == "softmax":
            return np.asarray(np.log(np.maximum(coefficients, _EDGE)))
        return np.clip(coefficients, 0, 1) if self._s.coefficients == "clamped" else coefficients

    def _gradient(self, free: Floats, slopes: Floats) -> Floats:
        """The derivative of the loss, and of the penalty, by the free numbers.

        ``slopes[g, i] = <gradient, theta_i - theta>``, the base's in the last column: their difference is
        ``<gradient, tau_i>``. Where weights sum to one, differences of slopes are all that softmax needs.
        """
        members, weights = len(self._problem.members), self._coefficients(free)
        based = self._s.coefficients != "softmax"
        by_group = slopes[:, :members] - slopes[:, members:] if based else slopes[:, :members]
        found = by_group if self._s.per_group else by_group.sum(axis=0, keepdims=True)
        found = found + self._s.agreement * _pull(weights)
        if self._s.coefficients == "sigmoid":
            return np.asarray(found * weights * (1 - weights))
        if self._s.coefficients == "softmax":
            return np.asarray(weights * (found - (weights * found).sum(axis=1, keepdims=True)))
        return np.asarray(found)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: AdaMergingState) -> tuple[int | None, ...]:
        """The last one scored."""
        return (state.parent if state.parent is not None and state.parent >= 0 else None,)

    def finalists(self, state: AdaMergingState) -> tuple[int, ...]:
        """The best ones told, best first."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: AdaMergingState) -> str | None:
        """All steps are made, or none more can be."""
        if state.failures >= FAILURES or (state.failures and state.at.steps == 0):
            return f"the last {state.failures} candidates could not be scored"
        if self._s.steps is not None and state.at.steps >= self._s.steps:
            return f"{state.at.steps} steps are made"
        return None

    def diagnostics(self, state: AdaMergingState) -> dict[str, float]:
        """Smallest and largest coefficient, and the size of the smoothed gradient."""
        coefficients = self._coefficients(state.at.free)
        return {
            "smallest": float(coefficients.min()),
            "largest": float(coefficients.max()),
            "gradient": float(np.linalg.norm(state.at.first)),
        }


def _check(settings: AdaMergingSettings, problem: Problem) -> None:
    """Refuse what cannot work.

    Raises:
        StrategyError: no slopes, no base, a fitness that cannot score batches, or an impossible start.
    """
    if not problem.slopes:
        raise StrategyError(
            "adamerging needs slopes of the fitness's loss, and this fitness has none; use one that classifies with "
            "the study's own models, or a strategy without gradients"
        )
    if settings.coefficients != "softmax" and problem.base is None:
        raise StrategyError("adamerging needs pool.base, the members' common ancestor; give it or use softmax")
    if settings.batch is not None and not problem.parts:
        raise StrategyError("adamerging's batch needs a fitness that scores some of its items only; leave it out")
    inside = settings.coefficients in ("free", "softmax") or 0 <= settings.start <= 1
    if not inside or not math.isfinite(settings.start):
        raise StrategyError(f"start = {settings.start:g} is not within 0 and 1, where {settings.coefficients} begins")


def _pull(weights: Floats) -> Floats:
    """The derivative of ``mean |w - mean over groups|``."""
    signs = np.sign(weights - weights.mean(axis=0))
    return np.asarray((signs - signs.mean(axis=0)) / weights.size)
