"""What lives on a worker: pool, builder, one live model and the fitness. Recipes come in, scores go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge import plugins
from evomerge.blackbox import AncestorsWanted, BlackBox, Family
from evomerge.candidate import WHOLE, Recipe, Score, Split, check_items
from evomerge.errors import EvaluationError
from evomerge.executor.port import Missing, Task
from evomerge.fitness import Fitness, Splits
from evomerge.itemorder import Order, chosen, item_order
from evomerge.merge.bind import Target, bind
from evomerge.merge.build import Builder, UnknownAncestors
from evomerge.merge.folders import cache_folder
from evomerge.merge.pool import ModelPool
from evomerge.merge.slopes import Slopes
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
    order: Order = "auto"
    seed: int = 0

    def __call__(self) -> StudyEvaluator:
        """Open the pool and build the live model; no tensor is read before the first candidate needs it."""
        plugins.allow(self.root)
        kind: Any = plugins.fitness(self.fitness.name)
        fitness: Fitness = kind(self.fitness.settings, self.splits)
        fitness.root = self.root
        if fitness.gets == "recipe":
            return StudyEvaluator(fitness, None, None, None, slopes=None, order=self._item_order(fitness))
        import torch

        torch.set_num_threads(self.threads)
        pool = ModelPool.open(self.pool, self.root)
        builder = Builder(pool, self.merge.mode, self.merge.cache_mb << 20, cache_folder(), self.threads)
        model = fitness.skeleton(pool.reference_folder)
        target = bind(model, pool)
        slopes = Slopes(model, target, pool, self.threads)
        return StudyEvaluator(fitness, builder, model, target, slopes=slopes, order=self._item_order(fitness))

    def _item_order(self, fitness: Fitness) -> Callable[[], NDArray[np.int64]]:
        def order() -> NDArray[np.int64]:
            return item_order(self.order, fitness.items("search"), fitness.strata("search"), self.seed)

        return order


class StudyEvaluator:
    """Builds a candidate in place into the live model and scores it; nothing touches the disk."""

    def __init__(
        self,
        fitness: Fitness,
        builder: Builder | None,
        model: Any,
        target: Target | None,
        *,
        slopes: Slopes | None,
        order: Callable[[], NDArray[np.int64]],
    ) -> None:
        self._fitness = fitness
        self._builder = builder
        self._model = model
        self._target = target
        self._slopes = slopes
        self._make_order = order
        self._items: dict[Split, int] = {}

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...] = ()) -> Score | Missing:
        """The task's score, or which recipes are cached when more of its ancestry is wanted.

        Raises:
            EvaluationError: the fitness returned something unusable.
            RecipeError: the recipe does not fit the pool or its operator.
            PoolError, ConfigError: the pool or the data is at fault, not the candidate.
        """
        recipe = task.candidate.recipe
        if isinstance(self._fitness, BlackBox):
            try:
                return self._score(Family(recipe, ancestors), task)
            except AncestorsWanted:
                return Missing(frozenset())
        if self._builder is None or self._target is None:
            return self._score(recipe, task)
        try:
            vector = self._builder.resolve(recipe, ancestors)
        except UnknownAncestors as error:
            return Missing(error.cached)
        self._builder.write(vector, self._target)
        return self._score(self._model, task)

    def _score(self, model: Any, task: Task) -> Score:
        """The score, if it has a number for each item asked for; the executor looks at the numbers themselves."""
        request = task.candidate.request if task.split == "search" else WHOLE
        places = None if request.ranges is None else chosen(self._order, request.ranges)
        if places is None and request.replicate:
            places = np.sort(self._order)  # all of them: in the split's own order, as always
        if places is None:
            score = self._counted(self._fitness.score(model, task.split), task.split)
        else:
            score = self._fitness.score_part(model, task.split, places, request.replicate)
            check_items(score, len(places))
        return self._with_slopes(score, model, task.split, places) if request.slopes else score

    def _with_slopes(self, score: Score, model: Any, split: Split, places: NDArray[np.int64] | None) -> Score:
        if self._slopes is None or not self._fitness.slopes:
            raise EvaluationError(f"{type(self._fitness).__name__} has no loss that can be differentiated")
        return replace(score, slopes=self._slopes(self._fitness.loss_terms(model, split, places)))

    def _counted(self, score: Score, split: Split) -> Score:
        if split not in self._items:
            self._items[split] = self._fitness.items(split)
        if self._items[split]:
            check_items(score, self._items[split])
        return score

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return self._make_order()
