"""The executor for evaluations that wait more than they compute: many in flight from one process, over one evaluator.

The evaluator is called by all threads at once, so it must be made for that, as a black-box fitness's is. A thread
cannot be ended: one whose evaluation is over its time is left behind, and what it still answers is not looked at.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

from evomerge.candidate import Cost, Evaluated, Recipe, Score
from evomerge.errors import EvomergeError
from evomerge.executor.edge import BLAMELESS, STILL_MISSING, Failure, evaluate, set_up
from evomerge.executor.port import Ancestry, Evaluator, Executor, Factory, Missing, OnEvent, Task, ignore

Result = Score | Missing | Failure | EvomergeError


@dataclass(eq=False, slots=True)
class _Job:
    """A task and what became of it. ``turn`` tells the present attempt from one that was left behind."""

    task: Task
    ancestors: tuple[Recipe, ...] = ()
    missed: int = 0
    failures: int = 0
    turn: int = 0
    since: float | None = None


@dataclass(eq=False, slots=True)
class _Inbox:
    """What the threads of one executor share with it."""

    evaluator: Evaluator
    todo: queue.SimpleQueue[tuple[_Job, int] | None] = field(default_factory=queue.SimpleQueue)
    done: queue.SimpleQueue[tuple[_Job, int, Result]] = field(default_factory=queue.SimpleQueue)


class ThreadExecutor(Executor):
    """Evaluates in ``workers`` threads of this process. ``time_limit`` is in seconds per attempt.

    The evaluator is made at the first ``next``.
    """

    def __init__(
        self,
        factory: Factory,
        ancestry: Ancestry,
        *,
        workers: int,
        time_limit: float | None = None,
        attempts: int = 2,
        on_event: OnEvent = ignore,
    ) -> None:
        self._factory = factory
        self._ancestry = ancestry
        self._workers = workers
        self._time_limit = time_limit
        self._attempts = attempts
        self._on_event = on_event
        self._fresh: list[_Job] = []  # not yet handed to the threads
        self._out: dict[int, _Job] = {}  # by identity
        self._inbox: _Inbox | None = None

    @property
    def workers(self) -> int:
        """How many threads there are."""
        return self._workers

    def submit(self, task: Task) -> None:
        """Take the task; it is begun by ``next``, or at once if the threads are running."""
        self._fresh.append(_Job(task))
        if self._inbox is not None:
            self._deal(self._inbox)

    def next(self, timeout: float | None = None) -> Evaluated | None:
        """The next task that any thread finishes, waiting up to ``timeout`` seconds."""
        if not self._fresh and not self._out:
            return None
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox = self._started()
        self._deal(inbox)
        while True:
            try:
                job, turn, result = inbox.done.get(timeout=self._patience(deadline))
            except queue.Empty:
                found = self._expired(inbox)
                if found is None and deadline is not None and time.monotonic() >= deadline:
                    return None
            else:
                found = self._settled(inbox, job, result) if id(job) in self._out and turn == job.turn else None
            if found is not None:
                return found

    def close(self) -> None:
        """Send the threads home and drop what is in flight. Safe to call twice."""
        self._fresh.clear()
        self._out.clear()
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            while not inbox.todo.empty():
                inbox.todo.get()
            for _ in range(self._workers):
                inbox.todo.put(None)

    def _started(self) -> _Inbox:
        if self._inbox is None:
            self._inbox = _Inbox(set_up(self._factory))
            for _ in range(self._workers):
                _begin(self._inbox)
        return self._inbox

    def _deal(self, inbox: _Inbox) -> None:
        fresh, self._fresh = self._fresh, []
        for job in fresh:
            self._send(inbox, job)

    def _send(self, inbox: _Inbox, job: _Job) -> None:
        job.turn, job.since = job.turn + 1, None
        self._out[id(job)] = job
        inbox.todo.put((job, job.turn))

    def _patience(self, deadline: float | None) -> float | None:
        """Seconds until there is something to do at the latest."""
        limits = [] if deadline is None else [deadline]
        if self._time_limit is not None:
            begun = (job.since for job in list(self._out.values()))
            limits.append(min((one for one in begun if one is not None), default=time.monotonic()) + self._time_limit)
        return max(0.0, min(limits) - time.monotonic()) if limits else None

    def _expired(self, inbox: _Inbox) -> Evaluated | None:
        """Give up one evaluation that is over its time; another thread takes its thread's place."""
        for job in list(self._out.values()):
            if self._time_limit is None or job.since is None or time.monotonic() - job.since < self._time_limit:
                continue
            number = job.task.candidate.number
            self._on_event("warning", "time_limit", f"a thread with candidate {number} was left behind", number)
            _begin(inbox)
            job.turn += 1
            return self._charged(inbox, job, f"the time limit of {self._time_limit:g} s is over")
        return None

    def _settled(self, inbox: _Inbox, job: _Job, result: Result) -> Evaluated | None:
        """Take in what a thread answered; ``None`` if the task is not finished."""
        if isinstance(result, EvomergeError):
            self._put_back(job)
            raise result
        if isinstance(result, Failure):
            return self._charged(inbox, job, result.reason)
        if isinstance(result, Score):
            del self._out[id(job)]
            return Evaluated(job.task.candidate, result, None, self._cost(job, job.failures + 1))
        if job.missed == 2:
            return self._charged(inbox, job, STILL_MISSING.reason)
        try:
            known = result.cached if job.missed == 0 else frozenset()
            job.ancestors = self._ancestry(job.task.candidate.recipe, known)
        except BaseException:
            self._put_back(job)
            raise
        job.missed += 1
        self._send(inbox, job)
        return None

    def _put_back(self, job: _Job) -> None:
        """Keep a task that nobody is to blame for until ``next`` is called again."""
        del self._out[id(job)]
        self._fresh.append(job)

    def _charged(self, inbox: _Inbox, job: _Job, reason: str) -> Evaluated | None:
        job.failures += 1
        if job.failures < self._attempts:
            job.ancestors, job.missed = (), 0
            self._send(inbox, job)
            return None
        del self._out[id(job)]
        return Evaluated(job.task.candidate, None, reason, self._cost(job, job.failures))

    @staticmethod
    def _cost(job: _Job, attempts: int) -> Cost:
        return Cost(0.0 if job.since is None else time.monotonic() - job.since, attempts, "thread")


def _begin(inbox: _Inbox) -> None:
    threading.Thread(target=_work, args=(inbox,), name="evomerge-thread", daemon=True).start()


def _work(inbox: _Inbox) -> None:
    """A thread: one task after the other until told to go, or until the task it works on was taken from it."""
    while (given := inbox.todo.get()) is not None:
        job, turn = given
        job.since = time.monotonic()
        result: Result
        try:
            result = evaluate(inbox.evaluator, job.task, job.ancestors)
        except BLAMELESS as error:
            result = error
        inbox.done.put((job, turn, result))
        if job.turn != turn:
            return
