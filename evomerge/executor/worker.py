"""What runs in a worker process. Knows nothing of Ray, so that it can be imported, and tested, without."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from dataclasses import dataclass

from evomerge import errors
from evomerge.candidate import Recipe, Score
from evomerge.errors import EvomergeError
from evomerge.executor.edge import BLAMELESS, Failure, describe, evaluate, set_up
from evomerge.executor.port import Evaluator, Missing, Task


@dataclass(frozen=True, slots=True)
class Fatal:
    """An error that is no candidate's fault, as plain text: exception objects do not all survive the way back.

    ``kind`` is the name of a class in `evomerge.errors`.
    """

    kind: str
    text: str

    def error(self) -> EvomergeError:
        """The error to raise in the driver."""
        kind: type[EvomergeError] = getattr(errors, self.kind)
        return kind(self.text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back of one call, how many seconds it took, and from which worker."""

    result: Score | Missing | Failure | Fatal
    seconds: float
    worker: str


class Worker:
    """One process with one evaluator.

    ``factory`` arrives pickled, and is opened after the number of threads has been said, because opening it may
    import libraries that read the number only once.
    """

    def __init__(self, factory: bytes, threads: int) -> None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)
        self._factory = factory
        self._threads = threads
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._evaluator: Evaluator | None = None

    def prepare(self) -> tuple[str, Fatal | None]:
        """Make the evaluator; this worker's name, and why there is no evaluator if there is none."""
        try:
            self._evaluator = set_up(self._opened)
        except EvomergeError as error:
            return self._name, _fatal(error)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._threads)
        return self._name, None

    def evaluate(self, task: Task, ancestors: tuple[Recipe, ...]) -> Answer:
        """One attempt at a task. Raises nothing."""
        begun = time.perf_counter()
        result: Score | Missing | Failure | Fatal
        if self._evaluator is None:
            result = Fatal("ExecutorError", "a worker was given a task before it was prepared")
        else:
            try:
                result = evaluate(self._evaluator, task, ancestors)
            except BLAMELESS as error:
                result = _fatal(error)
        return Answer(result, time.perf_counter() - begun, self._name)

    def _opened(self) -> Evaluator:
        evaluator: Evaluator = pickle.loads(self._factory)()
        return evaluator


def _fatal(error: EvomergeError) -> Fatal:
    """With the nearest class of `evomerge.errors`, since a plugin's own may be unknown to the driver."""
    kind = next((c.__name__ for c in type(error).__mro__ if c.__module__ == errors.__name__), "ExecutorError")
    text = str(error) if type(error).__name__ == kind else describe(error)
    return Fatal(kind, text)
