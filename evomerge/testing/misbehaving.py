"""Evaluators that score by digest, or misbehave on demand: raise, hang, exit, return nonsense, miss ancestors.

Everything here is importable and picklable, so that any executor's workers can use it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from evomerge.candidate import ANCESTOR, Candidate, Recipe, Score, Segment
from evomerge.errors import ConfigError, PoolError
from evomerge.executor.port import Missing, Task


def fake_score(recipe: Recipe) -> Score:
    """A score made of nothing but the recipe's digest."""
    items = np.frombuffer(bytes.fromhex(recipe.digest), dtype=np.uint8)
    return Score((("score", int(recipe.digest[:8], 16) / 2**32),), items % 2 == 0, items / 255.0)


@dataclass(frozen=True)
class FakeFactory:
    """Makes a `FakeEvaluator`. ``ways`` says how it behaves for which candidate number; default: well.

    ``folder`` is where evaluators, in whatever process, leave a file per evaluation; ``broken`` is what the factory
    itself raises; ``forgetful`` makes the evaluator drop its recipes after every answer of `Missing`.
    """

    folder: Path
    ways: Mapping[int, str] = field(default_factory=dict)
    broken: Exception | None = None
    forgetful: bool = False

    def __call__(self) -> FakeEvaluator:
        if self.broken is not None:
            raise self.broken
        return FakeEvaluator(self)

    def evaluations(self, number: int) -> int:
        """How many times the candidate was evaluated (answers of `Missing` not counted)."""
        return sum(1 for _ in self.folder.glob(f"{number}.*"))


class FakeEvaluator:
    """Scores by digest, or behaves in one of the ways that `BEHAVIOURS` lists."""

    def __init__(self, factory: FakeFactory) -> None:
        self.factory = factory
        self.known: set[str] = set()

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing:
        """Score the task, if all ancestors are known."""
        number, recipe = task.candidate.number, task.candidate.recipe
        way = self.factory.ways.get(number, "well")
        if not self._learn((*ancestors, recipe)) or way == "always missing":
            cached = frozenset(self.known)
            if self.factory.forgetful:
                self.known.clear()
            return Missing(cached)
        earlier = self.factory.evaluations(number)
        (self.factory.folder / f"{number}.{uuid4().hex}").touch()
        if way.endswith(" once"):
            way = "well" if earlier else way.removesuffix(" once")
        score: Score = BEHAVIOURS[way](recipe)
        return score

    def _learn(self, recipes: Iterable[Recipe]) -> bool:
        """Take recipes in, oldest first; whether none came before its ancestors."""
        for recipe in recipes:
            if any(digest not in self.known for digest in recipe.ancestors):
                return False
            self.known.add(recipe.digest)
        return True


def _raise(recipe: Recipe) -> Score:
    raise ValueError(f"nothing good about\n{recipe.operator}")


def _exit_at_once(recipe: Recipe) -> Score:
    os._exit(1)


def _exit_slowly(recipe: Recipe) -> Score:
    time.sleep(0.3)  # so that what was answered before is out of the house
    os._exit(1)


def _sys_exit(recipe: Recipe) -> Score:
    raise SystemExit(3)


def _hang(recipe: Recipe) -> Score:
    time.sleep(1000)
    return fake_score(recipe)


def _slow(recipe: Recipe) -> Score:
    time.sleep(1.0)
    return fake_score(recipe)


def _not_finite(recipe: Recipe) -> Score:
    return Score((("score", float("nan")),))


def _ragged(recipe: Recipe) -> Score:
    return Score((("score", 0.5),), np.ones(3, bool), np.ones(4))


def _numpy(recipe: Recipe) -> Score:
    return Score((("score", np.float32(0.5)),))  # type: ignore[arg-type]  # what a careless fitness returns


def _odd_notes(recipe: Recipe) -> Score:
    return Score((("score", 0.5),), notes=(("lock", threading.Lock()),))  # type: ignore[arg-type]  # as above


def _bad_pool(recipe: Recipe) -> Score:
    raise PoolError("the pool is gone; bring it back")


def _bad_data(recipe: Recipe) -> Score:
    raise ConfigError("the data are gone; bring them back")


def _nothing(recipe: Recipe) -> Any:
    return None


BEHAVIOURS: dict[str, Callable[[Recipe], Any]] = {
    "well": fake_score,
    "raise": _raise,
    "exit": _exit_at_once,
    "exit slowly": _exit_slowly,
    "sys.exit": _sys_exit,
    "hang": _hang,
    "slow": _slow,
    "nan": _not_finite,
    "ragged": _ragged,
    "numpy": _numpy,
    "odd notes": _odd_notes,
    "bad pool": _bad_pool,
    "bad data": _bad_data,
    "nothing": _nothing,
}
"""Each also as ``"... once"``: that way at the first evaluation, well afterwards. And ``"always missing"``."""


def fake_task(number: int, parents: tuple[Recipe, ...] = ()) -> Task:
    """A task whose recipe is unlike those of other numbers."""
    sources = tuple(ANCESTOR + parent.digest for parent in parents) or ("pool:a",)
    weights = (1.0 + number,) * len(sources)
    return Task(Candidate(number, Recipe("linear", sources, (Segment("all", 0, 4, weights),))))


def family(size: int) -> list[Task]:
    """Tasks of which each descends from the two before it."""
    tasks: list[Task] = []
    for number in range(size):
        tasks.append(fake_task(number, tuple(task.candidate.recipe for task in tasks[-2:])))
    return tasks
