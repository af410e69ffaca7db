"""The Executor port: tasks in, evaluated candidates out, in whatever order they finish.

The contract, checked by `evomerge.testing.executor.ExecutorContract`:

* every submitted task comes out of ``next`` exactly once, scored or failed, whatever happens to workers;
* an evaluation that raises, returns something unusable, exceeds the time limit or kills its worker is tried again once
  (``attempts=2``), then comes back as failed with its reason; nothing of that kind leaves ``next`` as an exception;
* what no candidate is to blame for does leave ``next`` as an exception, and once: an `EvomergeError` of the evaluator's
  factory (any other error there becomes an `ExecutorError`), a `ConfigError`, `PoolError` or `ServiceError` of an
  evaluation (data, pool or server are not what the study says, so every candidate would fail), an error of
  ``ancestry``, and `ExecutorError` when workers cannot be started or reached. The task is not lost: calling ``next``
  again, or resuming the study, evaluates it;
* an interrupt (Ctrl-C) passes through ``next`` and loses nothing either;
* tasks and the evaluator factory are all that crosses to a worker: paths and recipes, never tensors;
* ``close`` ends what the executor started, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from evomerge.candidate import Candidate, Evaluated, Recipe, Score, Split


@dataclass(frozen=True, slots=True)
class Task:
    """One candidate to build and score on one split."""

    candidate: Candidate
    split: Split = "search"


@dataclass(frozen=True, slots=True)
class Missing:
    """A worker's answer when it cannot build a recipe: send the ancestry down to what it has ``cached``."""

    cached: frozenset[str]


class Evaluator(Protocol):
    """Lives on a worker; holds a model pool, one live model and a fitness, and no state that matters.

    After an answer of `Missing` it is called again with the ancestry down to ``cached``; if that is not enough (the
    cache moved on in between), with all of it. Given all of it, it must not answer `Missing`.
    """

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing:
        """Score the task, or say which ancestors' recipes are wanted (oldest first in ``ancestors``)."""


Factory = Callable[[], Evaluator]
"""Makes an evaluator on the worker. Picklable, small: settings and paths."""

Ancestry = Callable[[Recipe, frozenset[str]], tuple[Recipe, ...]]
"""All ancestors of a recipe, oldest first, not going beyond the digests already known."""

OnEvent = Callable[[Literal["info", "warning", "error"], str, str, int | None], None]
"""Told what happens to workers: level, kind (``"worker"``, ``"time_limit"``), text, candidate number if any."""


def ignore(level: Literal["info", "warning", "error"], kind: str, text: str, number: int | None) -> None:
    """The `OnEvent` of those who do not want to know."""


class Executor(ABC):
    """Runs tasks. See the module's docstring for the contract."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many evaluations run at once."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task. Never blocks on its evaluation."""

    @abstractmethod
    def next(self, timeout: float | None = None) -> Evaluated | None:
        """The next finished task; ``None`` if there is none within ``timeout`` seconds or nothing is in flight."""

    @abstractmethod
    def close(self) -> None:
        """End workers at once, dropping what is in flight. Safe to call twice."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
