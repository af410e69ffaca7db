"""The executor with worker processes, on this machine or on a cluster: Ray Core actors and one ``ray.wait`` loop.

Who is to blame for a dead worker: an actor answers its calls in the order sent, so the oldest call without an answer
is the one that was running. It alone is charged an attempt; what was queued behind it is sent elsewhere, free of
charge. A task that was charged once is tried again alone on its worker, so the second verdict is beyond doubt (the
first is not quite: an answer that got lost because the next call crashed at once looks the same; it is made again).

Ray restarts and retries nothing here (``max_restarts=0``, ``max_task_retries=0``): a silent rerun would count an
evaluation twice. A dead worker is replaced by a new one, and the event told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evomerge.candidate import Array, Cost, Evaluated, Recipe, Score
from evomerge.errors import ExecutorError
from evomerge.executor.cluster import Cluster
from evomerge.executor.edge import STILL_MISSING, Failure, describe
from evomerge.executor.port import Ancestry, Executor, Factory, Missing, OnEvent, Task, ignore
from evomerge.executor.worker import Answer, Fatal, Worker

QUEUE_BELOW = 0.5  # seconds: shorter evaluations get a second task queued behind, to hide the way there and back
BAD_STARTS = 3  # workers in a row that die before they are ready
START_SECONDS = 900.0  # until the first worker is ready: large pools on slow disks


@dataclass(eq=False, slots=True)
class _Job:
    """A submitted task and what became of it so far."""

    task: Task
    failures: int = 0


@dataclass(eq=False, slots=True)
class _Call:
    """A job as sent to an actor; ``missed`` counts its answers of `Missing`."""

    job: _Job
    ref: Any
    missed: int = 0


@dataclass(eq=False, slots=True)
class _Seat:
    """A worker: its actor, its calls in the order sent, and when the first of them began at the earliest."""

    actor: Any
    preparing: Any
    since: float
    name: str = "a new worker"
    calls: deque[_Call] = field(default_factory=deque)

    @property
    def next_ref(self) -> Any:
        """What to wait for, if anything."""
        return self.preparing if self.preparing is not None else self.calls[0].ref if self.calls else None

    def room(self, depth: int, job: _Job) -> bool:
        """Whether the job may be sent: it and what is there do not insist on being alone."""
        if self.preparing is not None or len(self.calls) >= depth:
            return False
        return not self.calls or (job.failures == 0 and all(call.job.failures == 0 for call in self.calls))


class RayExecutor(Executor):
    """Evaluates on ``workers`` Ray actors of ``cpus`` CPUs, ``gpus`` GPUs and ``threads`` torch threads each.

    ``address`` is HOST:PORT of a standing cluster; without it a Ray of its own is started, and ended by ``close``.
    ``time_limit`` (seconds per attempt, not counting the worker's own setting-up) is hard: the worker is ended.

    Raises:
        ExecutorError: Ray cannot be started or reached, or has no room for the workers.
        ConfigError: the address is none.
    """

    def __init__(
        self,
        factory: Factory,
        ancestry: Ancestry,
        *,
        workers: int,
        threads: int = 1,
        cpus: float = 1.0,
        gpus: float = 0.0,
        address: str | None = None,
        time_limit: float | None = None,
        attempts: int = 2,
        on_event: OnEvent = ignore,
    ) -> None:
        self._ancestry = ancestry
        self._workers = workers
        self._threads = threads
        self._time_limit = time_limit
        self._attempts = attempts
        self._on_event = on_event
        self._waiting: deque[_Job] = deque()
        self._done: deque[Evaluated] = deque()
        self._seats: list[_Seat] = []
        self._bad_starts = 0
        self._mean_seconds: float | None = None
        self._cluster = Cluster(address, workers, cpus, gpus)
        self._ray = self._cluster.ray
        self._factory = self._ray.cloudpickle.dumps(factory)
        self._actor = self._ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._staff()

    @property
    def workers(self) -> int:
        """How many actors there are."""
        return self._workers

    def submit(self, task: Task) -> None:
        """Send the task to a worker with room, or queue it."""
        self._waiting.append(_Job(task))
        self._deal()

    def next(self, timeout: float | None = None) -> Evaluated | None:
        """The next task that any worker finishes, waiting up to ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._done and (self._waiting or any(seat.calls for seat in self._seats)):
            self._staff()
            self._deal()
            for seat in self._ready(deadline):
                self._settle(seat)
            self._expire()
            if deadline is not None and time.monotonic() >= deadline:
                break
        return self._done.popleft() if self._done else None

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        seats, self._seats = self._seats, []
        self._waiting.clear()
        self._done.clear()
        if self._ray.is_initialized():
            for seat in seats:
                self._ray.kill(seat.actor, no_restart=True)
        self._cluster.close()

    # --- sending ----------------------------------------------------------------------------------------------

    def _staff(self) -> None:
        """Start workers until there are enough."""
        while len(self._seats) < self._workers:
            actor = self._actor.remote(self._factory, self._threads)
            self._seats.append(_Seat(actor, actor.prepare.remote(), time.monotonic()))

    def _deal(self) -> None:
        """Send waiting jobs, oldest first, to the least busy workers with room."""
        depth = 2 if self._mean_seconds is not None and self._mean_seconds < QUEUE_BELOW else 1
        while self._waiting:
            open_seats = [seat for seat in self._seats if seat.room(depth, self._waiting[0])]
            if not open_seats:
                return
            self._send(min(open_seats, key=lambda seat: len(seat.calls)), self._waiting.popleft())

    def _send(self, seat: _Seat, job: _Job, ancestors: tuple[Recipe, ...] = (), missed: int = 0) -> None:
        if not seat.calls:
            seat.since = time.monotonic()
        seat.calls.append(_Call(job, seat.actor.evaluate.remote(job.task, ancestors), missed))

    # --- receiving --------------------------------------------------------------------------------------------

    def _ready(self, deadline: float | None) -> Iterator[_Seat]:
        """Workers whose oldest call has an answer, waiting no longer than until something is to be done."""
        refs = {seat.next_ref: seat for seat in self._seats if seat.next_ref is not None}
        limits = [] if deadline is None else [deadline]
        for seat in self._seats:
            if seat.preparing is not None:
                limits.append(seat.since + START_SECONDS)
            elif seat.calls and self._time_limit is not None:
                limits.append(seat.since + self._time_limit)
        seconds = max(0.0, min(limits) - time.monotonic()) if limits else None
        ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=seconds)
        return (refs[ref] for ref in ready)

    def _settle(self, seat: _Seat) -> None:
        """Take in the answer of a worker's oldest call."""
        try:
            answer = self._ray.get(seat.next_ref)
        except self._ray.exceptions.RayActorError as error:
            self._lose(seat, _death(error))
        except self._ray.exceptions.RayError as error:  # an answer that cannot be sent, such as unpicklable notes
            if seat.preparing is not None:
                self._lose(seat, describe(error))
            else:
                self._take(seat, Answer(Failure(describe(error)), 0.0, seat.name))
        else:
            if seat.preparing is not None:
                self._welcome(seat, *answer)
            else:
                self._take(seat, answer)

    def _welcome(self, seat: _Seat, name: str, fatal: Fatal | None) -> None:
        if fatal is not None:
            self._dismiss(seat)
            raise fatal.error()
        seat.name, seat.preparing = name, None
        self._bad_starts = 0

    def _take(self, seat: _Seat, answer: Answer) -> None:
        call = seat.calls[0]
        result = answer.result
        ancestors: tuple[Recipe, ...] = ()
        if isinstance(result, Missing):  # asked before anything changes, since the store may raise
            known = result.cached if call.missed == 0 else frozenset()
            ancestors = self._ancestry(call.job.task.candidate.recipe, known)
        seat.calls.popleft()
        seat.since = time.monotonic()
        if isinstance(result, Score):
            mean = answer.seconds if self._mean_seconds is None else self._mean_seconds
            self._mean_seconds = mean + 0.2 * (answer.seconds - mean)
            cost = Cost(answer.seconds, call.job.failures + 1, answer.worker)
            self._done.append(Evaluated(call.job.task.candidate, _own(result), None, cost))
        elif isinstance(result, Fatal):
            self._waiting.appendleft(call.job)
            raise result.error()
        elif isinstance(result, Failure):
            self._charge(call.job, result.reason, answer.seconds, answer.worker)
        elif call.missed < 2:
            self._send(seat, call.job, ancestors, call.missed + 1)
        else:
            self._charge(call.job, STILL_MISSING.reason, answer.seconds, answer.worker)

    # --- losing -----------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """End workers that are over their time."""
        now = time.monotonic()
        for seat in list(self._seats):
            over = now - seat.since
            if seat.preparing is not None:
                if over > START_SECONDS and not self._answered(seat):
                    self._dismiss(seat)
                    raise ExecutorError(f"a worker was not ready after {START_SECONDS:g} s; is the cluster busy?")
            elif seat.calls and self._time_limit is not None and over > self._time_limit and not self._answered(seat):
                self._lose(seat, f"the time limit of {self._time_limit:g} s is over")

    def _answered(self, seat: _Seat) -> bool:
        return bool(self._ray.wait([seat.next_ref], timeout=0)[0])

    def _lose(self, seat: _Seat, why: str) -> None:
        """Give up a worker: its oldest call is charged, the others are not."""
        self._dismiss(seat)
        if seat.preparing is not None:
            self._bad_starts += 1
            self._on_event("warning", "worker", f"a worker could not start: {why}", None)
            if self._bad_starts >= BAD_STARTS:
                self._bad_starts = 0
                raise ExecutorError(f"{BAD_STARTS} workers in a row died before they were ready; the last: {why}")
            return
        job = seat.calls.popleft().job
        self._waiting.extendleft(call.job for call in reversed(seat.calls))
        seconds = time.monotonic() - seat.since
        number = job.task.candidate.number
        self._on_event("warning", "worker", f"{seat.name} is replaced: {why}, with candidate {number}", number)
        self._charge(job, why, seconds, seat.name)

    def _dismiss(self, seat: _Seat) -> None:
        self._seats.remove(seat)
        self._ray.kill(seat.actor, no_restart=True)

    def _charge(self, job: _Job, reason: str, seconds: float, worker: str) -> None:
        job.failures += 1
        if job.failures < self._attempts:
            self._waiting.appendleft(job)
        else:
            cost = Cost(seconds, job.failures, worker)
            self._done.append(Evaluated(job.task.candidate, None, reason, cost))


def _death(error: Any) -> str:
    """One line on why a worker is gone; Ray's own text is a page."""
    text = str(error)
    if error.actor_init_failed:
        return text.strip().splitlines()[-1]
    if "OUT_OF_MEMORY" in text or "low memory" in text:
        return "the worker was ended for want of memory"
    return "the worker's node is gone" if "node has died" in text else "the worker process died"


def _own(score: Score) -> Score:
    """The score with arrays of its own: Ray's lie in shared memory that goes when Ray goes."""
    return replace(score, items=_copy(score.items), losses=_copy(score.losses))


def _copy(array: Array | None) -> Array | None:
    return None if array is None else np.array(array)
