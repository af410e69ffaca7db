"""What lives on a worker: pool, builder, one live model and the fitness. Recipes come in, scores go out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import plugins
from evomerge.candidate import Recipe, Score, Split, check_items
from evomerge.executor.port import Missing, Task
from evomerge.fitness import Fitness, Splits
from evomerge.merge.bind import Target, bind
from evomerge.merge.build import Builder, UnknownAncestors
from evomerge.merge.folders import cache_folder
from evomerge.merge.pool import ModelPool
from evomerge.settings import Choice, MergeSettings, PoolSettings


@dataclass(frozen=True)
class EvaluatorFactory:
    """Makes a study's evaluator on whichever worker calls it. Small and picklable: settings and paths.

    ``root`` is the folder that paths are relative to; ``threads`` the number of torch threads, and of those that write
    a large model.

    Raises (when called):
        PoolError, ConfigError: the pool or the data is not there, or not what the study says.
    """

    root: Path
    pool: PoolSettings
    merge: MergeSettings
    fitness: Choice
    splits: Splits
    threads: int = 1

    def __call__(self) -> StudyEvaluator:
        """Open the pool and build the live model; no tensor is read before the first candidate needs it."""
        plugins.allow(self.root)
        kind: Any = plugins.fitness(self.fitness.name)
        fitness: Fitness = kind(self.fitness.settings, self.splits)
        fitness.root = self.root
        if fitness.gets == "recipe":
            return StudyEvaluator(fitness, None, None, None)
        import torch

        torch.set_num_threads(self.threads)
        pool = ModelPool.open(self.pool, self.root)
        builder = Builder(pool, self.merge.mode, self.merge.cache_mb << 20, cache_folder(), self.threads)
        model = fitness.skeleton(pool.reference_folder)
        return StudyEvaluator(fitness, builder, model, bind(model, pool))


class StudyEvaluator:
    """Builds a candidate in place into the live model and scores it; nothing touches the disk."""

    def __init__(self, fitness: Fitness, builder: Builder | None, model: Any, target: Target | None) -> None:
        self._fitness = fitness
        self._builder = builder
        self._model = model
        self._target = target
        self._items: dict[Split, int] = {}

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...] = ()) -> Score | Missing:
        """The task's score, or which recipes are cached when more of its ancestry is wanted.

        Raises:
            EvaluationError: the fitness returned something unusable.
            RecipeError: the recipe does not fit the pool or its operator.
            PoolError, ConfigError: the pool or the data is at fault, not the candidate.
        """
        recipe = task.candidate.recipe
        if self._builder is None or self._target is None:
            return self._counted(self._fitness.score(recipe, task.split), task.split)
        try:
            vector = self._builder.resolve(recipe, ancestors)
        except UnknownAncestors as error:
            return Missing(error.cached)
        self._builder.write(vector, self._target)
        return self._counted(self._fitness.score(self._model, task.split), task.split)

    def _counted(self, score: Score, split: Split) -> Score:
        """The score, if it has a number for each item of the split; the executor looks at the numbers themselves."""
        if split not in self._items:
            self._items[split] = self._fitness.items(split)
        if self._items[split]:
            check_items(score, self._items[split])
        return score
