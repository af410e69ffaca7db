"""The desk: one thread that hands candidates to an executor, and brings each its result.

Waiting candidates are few and counted; one that comes when the room is full is told when to come again.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count

from evomerge import lineage
from evomerge.candidate import Candidate, Evaluated, Recipe, Request, Split
from evomerge.errors import EvomergeError, ExecutorError
from evomerge.executor.edge import describe
from evomerge.executor.port import Ancestry, Executor, Task

Open = Callable[[Ancestry], Executor]
"""Makes the executor, given how to look up ancestors. Called in the desk's thread, again after an error."""

_GLANCE = 0.02
"""Seconds that the executor is waited for before the waiting room is looked at again."""


class FullError(EvomergeError):
    """The waiting room is full; come again in so many ``seconds``."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many candidates are waiting; come again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, eq=False)
class Job:
    """A recipe to score, with all its ancestors by digest."""

    recipe: Recipe
    family: Mapping[str, Recipe]
    split: Split
    request: Request
    result: Future[Evaluated] = field(default_factory=Future)


class Desk:
    """See the module's docstring. ``waiting``: how many may wait beside those that are being scored."""

    def __init__(self, open_executor: Open, waiting: int) -> None:
        self._open = open_executor
        self._room = waiting
        self._bell = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._numbers = count()
        self._seconds = 1.0  # mean time of an evaluation
        self._workers = 1
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="evomerge-desk", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Evaluated]:
        """Take a job. Its future is a result, or the error that kept the executor from giving one.

        Raises:
            FullError: too many are waiting.
            ExecutorError: the desk is closed.
        """
        with self._bell:
            if self._closing:
                raise ExecutorError("the server is shutting down")
            if len(self._waiting) >= self._room:
                raise FullError(max(1, math.ceil(len(self._waiting) * self._seconds / self._workers)))
            self._waiting.append(job)
            self._bell.notify()
        return job.result

    def close(self) -> None:
        """End the thread and the executor, once what is being scored is done; what waits is dropped. Safe twice."""
        with self._bell:
            self._closing = True
            self._bell.notify()
        self._thread.join()

    def _work(self) -> None:
        executor: Executor | None = None
        try:
            while self._something_to_do():
                try:
                    executor = executor or self._open(self._ancestry)
                    self._workers = executor.workers
                    self._deal(executor)
                    evaluated = executor.next(_GLANCE)
                except Exception as error:  # whatever it is, everybody who waits must hear of it
                    self._give_up(executor, error)
                    executor = None
                else:
                    if evaluated is not None:
                        self._seconds += 0.2 * (evaluated.cost.seconds - self._seconds)
                        self._running.pop(evaluated.candidate.number).result.set_result(evaluated)
        finally:
            self._give_up(executor, ExecutorError("the server is shutting down"))

    def _something_to_do(self) -> bool:
        """Sleep while there is nothing; False when it is time to go."""
        with self._bell:
            while not (self._waiting or self._running or self._closing):
                self._bell.wait()
            return not self._closing or bool(self._running)

    def _deal(self, executor: Executor) -> None:
        with self._bell:
            while self._waiting and len(self._running) < executor.workers and not self._closing:
                job = self._waiting.popleft()
                number = next(self._numbers)
                self._running[number] = job
                executor.submit(Task(Candidate(number, job.recipe, request=job.request), job.split))

    def _give_up(self, executor: Executor | None, error: Exception) -> None:
        """End the executor, and tell all who wait for it why."""
        told = error if isinstance(error, EvomergeError) else ExecutorError(describe(error))
        if executor is not None:
            executor.close()
        with self._bell:
            jobs = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for job in jobs:
            job.result.set_exception(told)

    def _ancestry(self, recipe: Recipe, cached: frozenset[str]) -> tuple[Recipe, ...]:
        """A running recipe's ancestors, of which the front door has made sure that all are there."""
        family = next(job.family for job in self._running.values() if job.recipe.digest == recipe.digest)

        def lookup(digests: Iterable[str]) -> dict[str, Recipe]:
            return {digest: family[digest] for digest in digests if digest in family}

        return lineage.ancestry(recipe, cached, lookup)
