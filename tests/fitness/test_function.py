from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evomerge.candidate import Recipe, Score, Segment
from evomerge.errors import ConfigError, EvaluationError
from evomerge.fitness import Fitness, Splits
from evomerge.testing.fitness import FitnessContract
from evomerge_fitness.function import CallableFitness, CallableSettings
from evomerge_fitness.mlp import MLP, MLPConfig, save_mlp

CODE = '''
import numpy as np
import torch
from evomerge.candidate import Score

def norm(model, indices, split):
    """The weights' norm, per item."""
    total = sum(float(p.square().sum()) for p in model.parameters())
    return Score((("norm", total), ("count", float(len(indices)))), items=np.cos(indices * total))

def half_square(model, indices, split):
    return sum(p.square().sum() for p in model.parameters()) / 2

def with_losses(model, indices, split):
    loss = float(half_square(model, indices, split))
    return Score((("norm", loss),), items=np.zeros(len(indices)), losses=np.full(len(indices), loss))

def of_recipe(recipe, indices, split):
    return {"score": recipe.segments[0].values[0], "cost": len(indices)}

def build(folder):
    return torch.nn.Linear(2, 1)

constant = 3
def number(model, indices, split): return np.float32(0.5)
def text(model, indices, split): return "0.5"
def nan(model, indices, split): return float("nan")
def unnamed(model, indices, split): return {"other": 1.0}
def short(model, indices, split): return Score((("score", 1.0),), items=np.zeros(2))
def writes(model, indices, split): indices[0] = 7; return 1.0
'''


def write(folder: Path) -> Path:
    (folder / "mine.py").write_text(CODE)
    return folder


def make(folder: Path, name: str, **settings: Any) -> CallableFitness:
    fitness = CallableFitness(CallableSettings(f"mine.py:{name}", **settings), Splits(((0, 7),)))
    fitness.root = write(folder)
    return fitness


class TestCallableContract(FitnessContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        settings = CallableSettings("mine.py:norm", {"norm": "minimize", "count": "maximize"}, per_item=True)
        fitness = CallableFitness(settings, splits)
        fitness.root = write(folder)
        return fitness

    def checkpoint(self, folder: Path) -> Path:
        save_mlp(folder / "mlp", MLP(MLPConfig((4, 2))).state_dict(), (4, 2))
        return folder / "mlp"


class TestCallableWithALossContract(TestCallableContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        settings = CallableSettings(
            "mine.py:with_losses", {"norm": "minimize"}, per_item=True, loss="mine.py:half_square"
        )
        fitness = CallableFitness(settings, splits)
        fitness.root = write(folder)
        return fitness


class TestRecipeContract(FitnessContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        objectives: Any = {"score": "maximize", "cost": "minimize"}
        fitness = CallableFitness(CallableSettings("mine.py:of_recipe", objectives, gets="recipe"), splits)
        fitness.root = write(folder)
        return fitness

    def subject(self, fitness: Fitness, folder: Path, number: int) -> Recipe:
        return Recipe("linear", ("pool:a",), (Segment("all", 0, 4, (float(number),)),))


def test_an_installed_function_is_called_with_model_items_and_split() -> None:
    fitness = CallableFitness(CallableSettings("operator:countOf"), Splits(((0, 2),)))
    with pytest.raises(TypeError, match="expected 2 arguments, got 3"):
        fitness.score([], "search")


def test_numbers_of_any_kind_become_floats(tmp_path: Path) -> None:
    score = make(tmp_path, "number").score(None, "search")
    assert score.objectives == (("score", 0.5),)
    assert type(score["score"]) is float


def test_the_skeleton_may_be_a_function(tmp_path: Path) -> None:
    model = make(tmp_path, "number", skeleton="mine.py:build").skeleton(tmp_path)
    assert isinstance(model, torch.nn.Linear)
    assert not model.training
    assert not model.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("text", {}, "returned a str for 'score'"),
        ("nan", {}, "must be finite"),
        ("unnamed", {}, r"returned 'other', but objectives: \{score: maximize\}"),
        ("number", {"objectives": {"a": "maximize", "b": "minimize"}}, "one number, but objectives: {a: maximize"),
        ("number", {"per_item": True}, "returned no items, but per_item: True"),
        ("short", {}, "returned items, but per_item: False"),
        ("short", {"per_item": True}, "the split has 7 items"),
    ],
)
def test_what_the_settings_do_not_promise_is_refused(tmp_path: Path, name: str, settings: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        make(tmp_path, name, **settings).score(None, "search")


def test_indices_are_the_splits_and_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        make(tmp_path, "writes").score(None, "search")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("mine", "names no function"),
        ("mine.py:", "names no function"),
        ("none.py:f", "there is no file"),
        ("no_such_module_here:f", "cannot import"),
        ("mine.py:missing", "has no function 'missing'"),
        ("mine.py:constant", "has no function 'constant'"),
    ],
)
def test_functions_that_are_not_there_are_refused(tmp_path: Path, function: str, message: str) -> None:
    fitness = CallableFitness(CallableSettings(function), Splits(((0, 2),)))
    fitness.root = write(tmp_path)
    with pytest.raises(ConfigError, match=message):
        fitness.check(tmp_path)


def test_no_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="objectives are empty"):
        CallableFitness(CallableSettings("mine.py:number", {}), Splits(((0, 2),)))


def test_fingerprint_follows_the_code(tmp_path: Path) -> None:
    first = make(tmp_path, "number").fingerprint()
    assert first == make(tmp_path, "number").fingerprint()
    fitness = make(tmp_path, "number")
    (tmp_path / "mine.py").write_text(CODE + "\n# changed\n")
    assert first != fitness.fingerprint()


def test_empty_splits_have_no_indices(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text("def count(model, indices, split): return len(indices), indices.dtype")
    fitness = CallableFitness(CallableSettings("count.py:count"), Splits(((0, 7),)))
    fitness.root = tmp_path
    with pytest.raises(EvaluationError, match="tuple"):
        fitness.score(None, "report")
    assert isinstance(make(tmp_path, "number").score(None, "report"), Score)
    assert np.array_equal(fitness._indices["report"], np.zeros(0))


def test_a_loss_that_cannot_be_differentiated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="must return a torch scalar"):
        list(make(tmp_path, "norm", loss="mine.py:number").loss_terms(None, "search"))
    with pytest.raises(ConfigError, match="gets: recipe builds none"):
        make(tmp_path, "of_recipe", gets="recipe", loss="mine.py:half_square")
    with pytest.raises(ConfigError, match="has no function 'missing'"):
        make(tmp_path, "norm", loss="mine.py:missing").check(tmp_path)


def test_fingerprint_follows_the_code_of_the_loss(tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text("def loss(model, indices, split): return model")
    fitness = make(tmp_path, "norm", loss="loss.py:loss")
    assert set(fitness.fingerprint()) == {"mine.py:norm", "loss.py:loss"}
