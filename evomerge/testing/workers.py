"""An executor for tests: imaginary workers of uneven speed, in this process, in a repeatable order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evomerge.candidate import Candidate, Cost, Evaluated, Score, Split
from evomerge.executor.port import Executor, Task

Judge = Callable[[Candidate, Split], Score | str]
"""Scores a candidate, or says why it fails."""


class UnevenWorkers(Executor):
    """``workers`` imaginary workers; which of them finishes next is drawn from ``seed``."""

    def __init__(self, judge: Judge, workers: int = 1, seed: int = 0) -> None:
        self._judge, self._workers = judge, workers
        self._queue: list[Task] = []
        self._random = np.random.default_rng(seed)
        self.evaluated: list[int] = []
        """Numbers of the candidates scored so far, in the order of finishing."""

    @property
    def workers(self) -> int:
        """As many as were asked for."""
        return self._workers

    def submit(self, task: Task) -> None:
        """Queue it."""
        self._queue.append(task)

    def next(self, timeout: float | None = None) -> Evaluated | None:
        """One of the tasks at the head of the queue finishes."""
        if not self._queue:
            return None
        busy = min(self._workers, len(self._queue))
        task = self._queue.pop(int(self._random.integers(busy)))
        self.evaluated.append(task.candidate.number)
        verdict = self._judge(task.candidate, task.split)
        if isinstance(verdict, str):
            return Evaluated(task.candidate, failure=verdict, cost=Cost(0.0, 2, "imaginary"))
        return Evaluated(task.candidate, score=verdict, cost=Cost(0.0, 1, "imaginary"))

    def close(self) -> None:
        """Forget the queue."""
        self._queue.clear()
