"""Successive halving: of a batch of candidates the better half goes on to twice as many items, again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evomerge.candidate import Candidate, Evaluated
from evomerge.settings import EvaluationSettings
from evomerge.spending.evidence import difference_estimate
from evomerge.spending.rounds import Running, begun, boundaries
from evomerge.spending.wrapper import Job, Wrapper, WrapperState
from evomerge.strategy import Problem, Strategy


@dataclass(frozen=True)
class HalvingState(WrapperState):
    """Beside the numbers: the ``batch``, and how many items its best have seen when the present ``round`` is over."""

    batch: tuple[Running, ...]
    round: int


class Halving(Wrapper):
    """See the module's docstring (Jamieson & Talwalkar, AISTATS 2016).

    A batch is full at ``settings.batch`` candidates, or when the inner strategy has no other before it is told these: a
    generation. The last one left is scored on all items; the others are told its value less their mean difference from
    it on the items both have seen. Which half goes on is decided by the means alone, so no error rate can be given.
    """

    Kept = HalvingState

    def __init__(self, settings: EvaluationSettings, inner: Strategy[Any], problem: Problem) -> None:
        super().__init__(inner, problem)
        self._size, self._items = settings.batch, problem.items
        self._ends = boundaries(settings.first, problem.items)

    def _nothing(self) -> tuple[Any, ...]:
        return (), self._ends[0]

    def _open(self, state: HalvingState) -> bool:
        return state.round == self._ends[0] and len(state.batch) < self._size

    def _admit(self, state: HalvingState, candidate: Candidate) -> Any:
        runner = begun(candidate)
        queue = (*state.queue, Job(candidate, runner.request(self._ends[0])))
        return replace(state, batch=(*state.batch, runner), queue=queue)

    def _hear(self, state: HalvingState, job: Job, evaluated: Evaluated) -> Any:
        state = replace(state, batch=tuple(self._heard(one, job, evaluated) for one in state.batch))
        if state.out or state.queue or (self._open(state) and self._inner.ask(state.inner, 1)[1]):
            return state
        left = [one for one in state.batch if one.failure is None and one.seen]
        alive = [one for one in left if one.seen == state.round]
        if not left or (alive and state.round == self._items):
            return self._close(state, alive)
        ranked = sorted(left, key=lambda one: (-one.seen, -one.rows.mean(), one.candidate.number))
        best = ranked[: max((len(alive) + 1) // 2, 1)]  # where all of a round failed, the next best takes their place
        end = self._items if len(best) == 1 else next(end for end in self._ends if end > state.round)
        chosen = sorted(best, key=lambda one: one.candidate.number)
        return replace(state, round=end, queue=tuple(Job(one.candidate, one.request(end)) for one in chosen))

    def _heard(self, one: Running, job: Job, evaluated: Evaluated) -> Running:
        if one.candidate.number != job.candidate.number:
            return one
        if evaluated.score is None:
            return replace(one, failure=evaluated.failure)
        return one.with_round(evaluated.score, self._objective, job.request.size or 0)

    def _close(self, state: HalvingState, whole: list[Running]) -> Any:
        """Tell the inner strategy of the whole batch, in its order."""
        best = max(whole, key=lambda one: float(one.rows.mean()), default=None)
        batch = state.batch
        state = replace(state, batch=(), round=self._ends[0])
        for one in batch:
            if one.failure is not None or best is None:
                state = self._end(state, one.candidate, None, one.failure, whole=False)
            elif one.seen == self._items:
                state = self._end(state, one.candidate, one.score(self._objective), None, whole=True)
            else:
                value, error = difference_estimate(one.rows, best.rows)
                note = f"from {one.seen} of {self._items} items, standard error {error:.3g}; not in the better half"
                state = self._end(state, one.candidate, one.score(self._objective, value, note), None, whole=False)
        return state
