"""The executor without workers: evaluates in the driver's own process, when asked for the next result."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from evomerge.candidate import Cost, Evaluated, Recipe, Score
from evomerge.executor import alarm
from evomerge.executor.edge import STILL_MISSING, Failure, evaluate, set_up
from evomerge.executor.port import Ancestry, Evaluator, Executor, Factory, Missing, OnEvent, Task, ignore


class InlineExecutor(Executor):
    """Evaluates inside ``next``, in the order submitted; ``next``'s own ``timeout`` is not looked at.

    The evaluator is made at the first ``next``. ``time_limit`` (seconds per attempt) is soft, see
    `evomerge.executor.alarm`, and works in the main thread only; elsewhere one event says that it does not. After an
    attempt ran out of time the evaluator is made afresh, since it was interrupted anywhere. What kills the process
    kills the study's driver: use Ray for a fitness that may.
    """

    def __init__(
        self,
        factory: Factory,
        ancestry: Ancestry,
        *,
        time_limit: float | None = None,
        attempts: int = 2,
        on_event: OnEvent = ignore,
    ) -> None:
        self._factory = factory
        self._ancestry = ancestry
        self._time_limit = time_limit
        self._attempts = attempts
        self._on_event = on_event
        self._tasks: deque[Task] = deque()
        self._evaluator: Evaluator | None = None

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def submit(self, task: Task) -> None:
        """Queue the task."""
        self._tasks.append(task)

    def next(self, timeout: float | None = None) -> Evaluated | None:
        """Evaluate the oldest task."""
        if not self._tasks:
            return None
        if self._time_limit is not None and not alarm.available():
            self._on_event("warning", "time_limit", "no time limit outside the main thread; use the ray executor", None)
            self._time_limit = None
        task = self._tasks[0]
        begun = time.perf_counter()
        answer, attempts = self._attempt(task), 1
        while isinstance(answer, Failure) and attempts < self._attempts:
            answer, attempts = self._attempt(task), attempts + 1
        self._tasks.popleft()  # only now: an interrupt or an error above leaves the task where it was
        cost = Cost(time.perf_counter() - begun, attempts, "inline")
        if isinstance(answer, Score):
            return Evaluated(task.candidate, answer, None, cost)
        return Evaluated(task.candidate, None, answer.reason, cost)

    def close(self) -> None:
        """Drop what is queued and let the evaluator's memory go."""
        self._tasks.clear()
        self._evaluator = None

    def _attempt(self, task: Task) -> Score | Failure:
        answer = self._evaluate(task, ())
        if isinstance(answer, Missing):
            answer = self._evaluate(task, self._ancestry(task.candidate.recipe, answer.cached))
        if isinstance(answer, Missing):
            answer = self._evaluate(task, self._ancestry(task.candidate.recipe, frozenset()))
        return STILL_MISSING if isinstance(answer, Missing) else answer

    def _evaluate(self, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing | Failure:
        if self._evaluator is None:
            self._evaluator = set_up(self._factory)
        if self._time_limit is None:
            return evaluate(self._evaluator, task, ancestors)
        try:
            return alarm.limited(partial(evaluate, self._evaluator, task, ancestors), self._time_limit)
        except alarm.TimeUp:
            self._evaluator = None
            return Failure(f"the time limit of {self._time_limit:g} s is over")
