"""The worker's side of a study, with tiny models and a fitness that the test itself defines."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from evomerge import plugins
from evomerge.candidate import Candidate, Recipe, Request, Score, Segment
from evomerge.errors import EvaluationError, PoolError
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Missing, Task
from evomerge.fitness import Fitness, Splits
from evomerge.settings import Choice, MergeSettings, PoolSettings
from evomerge.strategy import Objective

SIZE = 6


@dataclass(frozen=True)
class SumSettings:
    items: int = 4
    returned: int = 4


class Sum(Fitness):
    """The sum of the weights."""

    Settings = SumSettings

    def __init__(self, settings: SumSettings, splits: Splits) -> None:
        self.settings = settings

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("sum"),)

    def items(self, split: str) -> int:
        return self.settings.items

    def skeleton(self, folder: Path) -> Any:
        model = torch.nn.Module()
        model.weight = torch.nn.Parameter(torch.zeros(SIZE), requires_grad=False)
        return model

    def score(self, model: Any, split: str) -> Score:
        return Score((("sum", float(model.weight.sum())),), np.zeros(self.settings.returned, bool))


class OfRecipes(Sum):
    """The first coefficient, no weights."""

    gets = "recipe"

    def score(self, model: Any, split: str) -> Score:
        return Score((("sum", model.segments[0].values[0]),), np.zeros(4, bool))


class Numbered(Sum):
    """Each item scores its own number, all of them the number of the repetition."""

    parts = True

    def score_part(self, model: Any, split: str, places: Any, replicate: int = 0) -> Score:
        return Score((("sum", float(replicate)),), places.astype(float))


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluatorFactory:
    known: dict[str, type[Fitness]] = {"sum": Sum, "recipes": OfRecipes, "numbered": Numbered}
    monkeypatch.setattr(plugins, "fitness", lambda name: known[name])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    for place, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        save_file({"weight": np.full(SIZE, 1 + place, np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({}))
    pool = PoolSettings({"one": "one", "two": "two"})
    return EvaluatorFactory(tmp_path, pool, MergeSettings(), Choice("sum", SumSettings()), Splits(((0, 4),)))


def mix(weight: float, *sources: str) -> Recipe:
    return Recipe("linear", sources, (Segment("all", 0, SIZE, (weight, 1 - weight)),))


def task(recipe: Recipe) -> Task:
    return Task(Candidate(0, recipe))


def test_a_recipe_is_built_and_scored(factory: EvaluatorFactory) -> None:
    score = factory()(task(mix(0.25, "pool:one", "pool:two")))
    assert isinstance(score, Score)
    assert score["sum"] == pytest.approx(SIZE * 1.75)


@pytest.mark.parametrize("mode", ["dense", "table"])
def test_unknown_ancestors_are_asked_for(factory: EvaluatorFactory, mode: Any) -> None:
    evaluator = replace(factory, merge=MergeSettings(mode))()
    parent = mix(0.5, "pool:one", "pool:two")
    child = mix(0.5, f"recipe:{parent.digest}", "pool:one")
    assert isinstance(evaluator(task(child)), Missing)
    score = evaluator(task(child), (parent,))
    assert isinstance(score, Score)
    assert score["sum"] == pytest.approx(SIZE * 1.25)
    again = evaluator(task(mix(0.25, f"recipe:{child.digest}", f"recipe:{parent.digest}")))
    assert isinstance(again, Score)


def test_missing_names_what_is_cached(factory: EvaluatorFactory) -> None:
    evaluator = factory()
    known = mix(0.5, "pool:one", "pool:two")
    evaluator(task(known))
    answer = evaluator(task(mix(0.5, f"recipe:{'0' * 32}", "pool:one")))
    assert isinstance(answer, Missing)
    assert known.digest in answer.cached


def test_a_fitness_of_recipes_needs_no_weights(factory: EvaluatorFactory, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "model.safetensors").unlink()
    evaluator = replace(factory, fitness=Choice("recipes", SumSettings()))()
    score = evaluator(task(mix(0.25, "pool:one", "recipe:unknown")))
    assert isinstance(score, Score)
    assert score["sum"] == 0.25


def test_a_score_with_too_few_items_is_refused(factory: EvaluatorFactory) -> None:
    evaluator = replace(factory, fitness=Choice("sum", SumSettings(returned=3)))()
    with pytest.raises(EvaluationError, match="the split has 4 items"):
        evaluator(task(mix(0.5, "pool:one", "pool:two")))


def test_some_items_are_asked_for_in_the_order_of_the_study(factory: EvaluatorFactory) -> None:
    evaluator = replace(factory, fitness=Choice("numbered", SumSettings()), order="natural")()
    recipe = mix(0.5, "pool:one", "pool:two")
    some = evaluator(Task(Candidate(0, recipe, request=Request(((2, 4), (0, 1))))))
    assert isinstance(some, Score)
    assert some.items is not None
    assert some.items.tolist() == [2, 3, 0]
    again = evaluator(Task(Candidate(0, recipe, request=Request(replicate=3))))
    assert isinstance(again, Score)
    assert again["sum"] == 3
    assert again.items is not None
    assert again.items.tolist() == [0, 1, 2, 3]
    whole = evaluator(Task(Candidate(0, recipe, request=Request(((2, 4),))), "report"))
    assert isinstance(whole, Score)
    assert whole["sum"] > 3, "other splits are always scored as a whole"


def test_a_pool_that_is_gone_is_nobodys_candidate_fault(factory: EvaluatorFactory, tmp_path: Path) -> None:
    (tmp_path / "two" / "model.safetensors").unlink()
    with pytest.raises(PoolError):
        factory()


def test_what_crosses_to_a_worker_is_small(factory: EvaluatorFactory) -> None:
    text = pickle.dumps(factory)
    assert len(text) < 2000
    assert pickle.loads(text) == factory


class Square(Sum):
    """Half the square of the weights, which has the weights for a gradient."""

    slopes = True
    parts = True

    def score_part(self, model: Any, split: str, places: Any, replicate: int = 0) -> Score:
        return Score((("sum", 0.0),), np.zeros(len(places), bool))

    def loss_terms(self, model: Any, split: str, places: Any = None) -> Any:
        part = 1.0 if places is None else len(places) / self.settings.items
        yield part * (model.weight**2).sum() / 2


@pytest.mark.parametrize(("ranges", "part"), [(None, 1.0), (((0, 1), (2, 3)), 0.5)])
def test_slopes_are_given_where_they_are_asked_for(
    factory: EvaluatorFactory, monkeypatch: pytest.MonkeyPatch, ranges: Any, part: float
) -> None:
    monkeypatch.setattr(plugins, "fitness", lambda name: Square)
    evaluator = factory()
    recipe = mix(0.5, "pool:one", "pool:two")  # 1.5 everywhere
    plain = evaluator(Task(Candidate(0, recipe)))
    assert isinstance(plain, Score)
    assert plain.slopes is None
    score = evaluator(Task(Candidate(1, recipe, request=Request(ranges, slopes=True))))
    assert isinstance(score, Score)
    np.testing.assert_allclose(score.slopes, [[-0.75 * SIZE * part, 0.75 * SIZE * part]])
    reported = evaluator(Task(Candidate(1, recipe, request=Request(slopes=True)), "report"))
    assert isinstance(reported, Score)
    assert reported.slopes is None


@pytest.mark.parametrize("name", ["sum", "recipes"])
def test_slopes_that_the_fitness_cannot_give_are_refused(factory: EvaluatorFactory, name: str) -> None:
    evaluator = replace(factory, fitness=Choice(name, SumSettings()))()
    with pytest.raises(EvaluationError, match="no loss that can be differentiated"):
        evaluator(Task(Candidate(0, mix(0.5, "pool:one", "pool:two"), request=Request(slopes=True))))
