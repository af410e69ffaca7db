"""The Executor port: tasks in, evaluated candidates out, in whatever order they finish.

The contract, checked by `evomerge.testing.ExecutorContract`:

* every submitted task comes out of ``next`` exactly once, scored or failed, whatever happens to workers;
* an evaluation that raises, returns something unusable, exceeds the time limit or kills its worker is tried again once
  (``attempts=2``), then comes back as failed with its reason; nothing of that kind leaves ``next`` as an exception;
* tasks and the evaluator factory are all that crosses to a worker: paths and recipes, never tensors;
* ``close`` ends what the executor started, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
    """Lives on a worker; holds a model pool, one live model and a fitness, and no state that matters."""

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing:
        """Score the task, or say which ancestors' recipes are wanted (oldest first in ``ancestors``)."""


Factory = Callable[[], Evaluator]
"""Makes an evaluator on the worker. Picklable, small: settings and paths."""

Ancestry = Callable[[Recipe, frozenset[str]], tuple[Recipe, ...]]
"""All ancestors of a recipe, oldest first, not going beyond the digests already known."""


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
