"""What all policies share: a strategy that passes on another's candidates, each as one or more of its own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, make_dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import WHOLE, Candidate, Evaluated, Request, Score
from evomerge.strategy import Problem, Strategy


@dataclass(frozen=True, slots=True)
class Job:
    """An evaluation of the inner strategy's candidate that is to be asked."""

    candidate: Candidate
    request: Request


@dataclass(frozen=True)
class WrapperState:
    """Whom the inner strategy's candidates are here.

    Attributes:
        inner: the inner strategy's state.
        asked: evaluations asked.
        told: evaluations told.
        numbers: by the inner strategy's number of a candidate, the number of its first evaluation; int64.
        whole: by the same, whether it was scored on all items.
        queue: evaluations to ask next.
        out: number and job of each evaluation that is out.
        best: value and number of the best one that was scored on all items.
    """

    inner: Any
    asked: int
    told: int
    numbers: NDArray[np.int64]
    whole: NDArray[np.bool_]
    queue: tuple[Job, ...]
    out: tuple[tuple[int, Job], ...]
    best: tuple[float, int] | None


@cache
def state_type(kind: type[WrapperState], inner: type) -> type[WrapperState]:
    """``kind`` with its ``inner`` state's type known, as the codec needs it."""
    return make_dataclass(kind.__name__, [("inner", inner)], bases=(kind,), frozen=True)


class Wrapper(Strategy[Any]):
    """Asks the candidates of ``inner`` in the evaluations that a policy wants of them."""

    Kept: type[WrapperState] = WrapperState
    """What the policy keeps; its fields beyond `WrapperState` come from `_nothing`."""

    def __init__(self, inner: Strategy[Any], problem: Problem) -> None:
        self._inner, self._objective = inner, problem.objectives[0]
        # a class of its own: the state's type depends on the inner strategy's
        kept: Any = self.Kept
        self.State = state_type(kept, inner.State)  # type: ignore[misc]

    # --- what a policy decides --------------------------------------------------------------------------------

    def _nothing(self) -> tuple[Any, ...]:
        """The policy's own fields before anything was asked."""
        return ()

    def _takes(self, request: Request) -> bool:
        """Whether the policy is for such a candidate; others are passed on as they are."""
        return request == WHOLE

    def _open(self, state: Any) -> bool:
        """Whether the inner strategy may be asked for a candidate now."""
        return True

    @abstractmethod
    def _admit(self, state: Any, candidate: Candidate) -> Any:
        """Take the inner strategy's next candidate in and queue the first evaluations of it."""

    @abstractmethod
    def _hear(self, state: Any, job: Job, evaluated: Evaluated) -> Any:
        """Take a result in: queue what follows, or end the candidate by `_end`."""

    # --- the strategy -----------------------------------------------------------------------------------------

    def start(self) -> Any:
        """Nothing asked."""
        empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return self.State(self._inner.start(), 0, 0, *empty, (), (), None, *self._nothing())

    def ask(self, state: Any, room: int) -> tuple[Any, tuple[Candidate, ...]]:
        """What is queued, then the inner strategy's next candidates, one by one."""
        asked: list[Candidate] = []
        while len(asked) < room:
            if state.queue:
                state, candidate = self._outward(state)
                asked.append(candidate)
                continue
            inner, new = self._inner.ask(state.inner, 1) if self._open(state) else (None, ())
            if not new:
                break
            known = replace(state, inner=inner, whole=np.append(state.whole, False))
            taken = self._takes(new[0].request)
            state = self._admit(known, new[0]) if taken else replace(known, queue=(Job(new[0], new[0].request),))
        return state, tuple(asked)

    def _outward(self, state: Any) -> tuple[Any, Candidate]:
        """The next queued evaluation as a candidate of this study."""
        job, number = state.queue[0], state.asked
        numbers = state.numbers
        if job.candidate.number == len(numbers):
            numbers = np.append(numbers, number)
        parents = tuple(int(numbers[parent]) for parent in job.candidate.parents)
        candidate = replace(job.candidate, number=number, parents=parents, request=job.request)
        out = (*state.out, (number, job))
        return replace(state, asked=number + 1, numbers=numbers, queue=state.queue[1:], out=out), candidate

    def tell(self, state: Any, evaluated: Evaluated) -> Any:
        """Pass it to the policy; to the inner strategy itself, if that asked for something special."""
        number = evaluated.candidate.number
        job = next(job for out, job in state.out if out == number)
        out = tuple(one for one in state.out if one[0] != number)
        state = replace(state, told=state.told + 1, out=out)
        if self._takes(job.candidate.request):
            return self._hear(state, job, evaluated)
        whole = job.request.ranges is None and not job.request.replicate
        return self._end(state, job.candidate, evaluated.score, evaluated.failure, whole=whole)

    def _end(self, state: Any, candidate: Candidate, score: Score | None, failure: str | None, *, whole: bool) -> Any:
        """Tell the inner strategy what came of its candidate; ``whole``: it was scored on all items."""
        state = replace(state, inner=self._inner.tell(state.inner, Evaluated(candidate, score, failure)))
        if score is None or not whole:
            return state
        flags, value = state.whole.copy(), score[self._objective.name]
        flags[candidate.number] = True
        best = state.best
        if best is None or self._objective.gain(value) > self._objective.gain(best[0]):
            best = (value, int(state.numbers[candidate.number]))
        return replace(state, whole=flags, best=best)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: Any) -> tuple[int | None, ...]:
        """The inner strategy's."""
        inner = self._inner.population(state.inner)
        return tuple(None if number is None else int(state.numbers[number]) for number in inner)

    def finalists(self, state: Any) -> tuple[int, ...]:
        """The inner strategy's, as far as they were scored on all items."""
        inner = self._inner.finalists(state.inner)
        return tuple(int(state.numbers[number]) for number in inner if state.whole[number])

    def leader(self, state: Any) -> tuple[float, int] | None:
        """The best one that was scored on all items."""
        return state.best  # type: ignore[no-any-return]  # a field of every policy's state

    def members(self, state: Any) -> tuple[str, ...] | None:
        """As the inner strategy says."""
        return self._inner.members(state.inner)

    def exhausted(self, state: Any) -> str | None:
        """As the inner strategy says."""
        return self._inner.exhausted(state.inner)

    def diagnostics(self, state: Any) -> dict[str, float]:
        """The inner strategy's."""
        return self._inner.diagnostics(state.inner)
