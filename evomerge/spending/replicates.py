"""Noise: every candidate several times, the leaders again and again, finalists by what they surely reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from evomerge.candidate import Array, Candidate, Evaluated, Request, Score
from evomerge.settings import EvaluationSettings
from evomerge.spending.wrapper import Job, Wrapper, WrapperState
from evomerge.strategy import Problem, Strategy

LEADERS = 10
"""So many of the best are remembered, or as many as are re-evaluated."""


@dataclass(frozen=True)
class Repeated:
    """A candidate that is being evaluated several times: the scores that are back, or why one is not."""

    candidate: Candidate
    scores: tuple[Score, ...] = ()
    failure: str | None = None
    back: int = 0


@dataclass(frozen=True)
class Leader:
    """One of the best, with what each of its evaluations gained; ``out``: one more is asked for."""

    candidate: Candidate
    gains: tuple[float, ...]
    out: bool = False

    @property
    def mean(self) -> float:
        """Of all its evaluations."""
        return math.fsum(self.gains) / len(self.gains)


@dataclass(frozen=True)
class ReplicateState(WrapperState):
    """Beside the numbers: who is out, and the leaders, best first.

    ``spread`` is the sum of squared deviations of evaluations from their candidate's mean, over all candidates, with
    ``freedom`` degrees of freedom; ``until`` counts candidates down to the next re-evaluation of the leaders.
    """

    repeated: tuple[Repeated, ...]
    leaders: tuple[Leader, ...]
    spread: float
    freedom: int
    until: int


class Replicates(Wrapper):
    """See the module's docstring.

    A candidate is told the mean of its ``replicates``. After every ``reevaluate_every`` candidates the ``reevaluate``
    best are evaluated once more. The variance of one evaluation is pooled over all candidates; leaders and finalists
    are ordered by their lower confidence bound, mean - z sigma / sqrt(evaluations).
    """

    Kept = ReplicateState

    def __init__(self, settings: EvaluationSettings, inner: Strategy[Any], problem: Problem) -> None:
        super().__init__(inner, problem)
        self._s, self._z = settings, NormalDist().inv_cdf(settings.confidence)

    def _nothing(self) -> tuple[Any, ...]:
        return (), (), 0.0, 0, self._s.reevaluate_every

    def _takes(self, request: Request) -> bool:
        return request.replicate == 0

    def _admit(self, state: ReplicateState, candidate: Candidate) -> Any:
        requests = (replace(candidate.request, replicate=number) for number in range(self._s.replicates))
        queue = (*state.queue, *(Job(candidate, request) for request in requests))
        return replace(state, repeated=(*state.repeated, Repeated(candidate)), queue=queue)

    # --- hearing ----------------------------------------------------------------------------------------------

    def _hear(self, state: ReplicateState, job: Job, evaluated: Evaluated) -> Any:
        number = job.candidate.number
        one = next((one for one in state.repeated if one.candidate.number == number), None)
        if one is None:
            return self._hear_leader(state, number, evaluated)
        scores = (*one.scores, evaluated.score) if evaluated.score is not None else one.scores
        after = replace(one, scores=scores, failure=one.failure or evaluated.failure, back=one.back + 1)
        others = tuple(other for other in state.repeated if other is not one)
        if after.back < self._s.replicates:
            return replace(state, repeated=(*others, after))
        return self._complete(replace(state, repeated=others), after)

    def _complete(self, state: ReplicateState, one: Repeated) -> Any:
        """All replicates are back."""
        whole = one.candidate.request.ranges is None
        if one.failure is not None:
            state = self._end(state, one.candidate, None, one.failure, whole=False)
            return self._count_down(state)
        gains = tuple(self._objective.gain(score[self._objective.name]) for score in one.scores)
        deviations = np.square(np.array(gains) - np.mean(gains)).sum()
        state = replace(state, spread=state.spread + float(deviations), freedom=state.freedom + len(gains) - 1)
        if whole:
            state = self._with_leaders(state, (*state.leaders, Leader(one.candidate, gains)))
        return self._count_down(self._end(state, one.candidate, mean_score(one.scores), None, whole=whole))

    def _count_down(self, state: ReplicateState) -> Any:
        """One candidate fewer to the next re-evaluation; when it is due, ask for it."""
        if state.until > 1 or not self._s.reevaluate:
            return replace(state, until=max(state.until - 1, 1))
        due = [one for one in state.leaders[: self._s.reevaluate] if not one.out]
        jobs = tuple(Job(one.candidate, replace(one.candidate.request, replicate=len(one.gains))) for one in due)
        leaders = tuple(replace(one, out=True) if one in due else one for one in state.leaders)
        return replace(state, queue=(*state.queue, *jobs), leaders=leaders, until=self._s.reevaluate_every)

    def _hear_leader(self, state: ReplicateState, number: int, evaluated: Evaluated) -> Any:
        """One more evaluation of a leader, if it is still one."""
        one = next((one for one in state.leaders if one.candidate.number == number), None)
        if one is None:
            return state
        others = tuple(other for other in state.leaders if other is not one)
        if evaluated.score is None:
            return self._with_leaders(state, (*others, replace(one, out=False)))
        gain, count = self._objective.gain(evaluated.score[self._objective.name]), len(one.gains)
        deviation = count / (count + 1) * (gain - one.mean) ** 2
        state = replace(state, spread=state.spread + deviation, freedom=state.freedom + 1)
        return self._with_leaders(state, (*others, Leader(one.candidate, (*one.gains, gain))))

    def _with_leaders(self, state: ReplicateState, leaders: tuple[Leader, ...]) -> ReplicateState:
        """The best of these, best first."""
        sigma = math.sqrt(state.spread / state.freedom) if state.freedom else 0.0
        bound = {one.candidate.number: one.mean - self._z * sigma / math.sqrt(len(one.gains)) for one in leaders}
        ranked = sorted(leaders, key=lambda one: (-bound[one.candidate.number], one.candidate.number))
        return replace(state, leaders=tuple(ranked[: max(LEADERS, self._s.reevaluate)]))

    # --- looking ----------------------------------------------------------------------------------------------

    def finalists(self, state: ReplicateState) -> tuple[int, ...]:
        """The leaders; where the inner strategy has rounds, its finalists."""
        if not state.leaders:
            return tuple(int(state.numbers[number]) for number in self._inner.finalists(state.inner))
        return tuple(int(state.numbers[one.candidate.number]) for one in state.leaders)

    def leader(self, state: ReplicateState) -> tuple[float, int] | None:
        """The first of the leaders with its mean; where the inner strategy has rounds, its leader."""
        if state.leaders:
            best = state.leaders[0]
            return self._objective.gain(best.mean), int(state.numbers[best.candidate.number])
        inner = self._inner.leader(state.inner)
        return None if inner is None else (inner[0], int(state.numbers[inner[1]]))

    def diagnostics(self, state: ReplicateState) -> dict[str, float]:
        """The inner strategy's, and the standard deviation of one evaluation."""
        noise = {"noise": math.sqrt(state.spread / state.freedom)} if state.freedom else {}
        return super().diagnostics(state) | noise


def mean_score(scores: tuple[Score, ...]) -> Score:
    """The mean of repeated scores, number by number."""
    if len(scores) == 1:
        return scores[0]
    means = tuple((name, math.fsum(one[name] for one in scores) / len(scores)) for name, _ in scores[0].objectives)
    items, losses, slopes = (_mean([getattr(one, name) for one in scores]) for name in ("items", "losses", "slopes"))
    return Score(means, items, losses, (("mean of", f"{len(scores)} evaluations"),), slopes)


def _mean(rows: list[Array | None]) -> Array | None:
    known = [row.astype(np.float64) for row in rows if row is not None]
    return np.mean(known, axis=0) if len(known) == len(rows) else None
