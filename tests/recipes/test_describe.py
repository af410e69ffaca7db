from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.candidate import Recipe, Segment
from evomerge.merge.pool import ModelPool
from evomerge.recipes import describe, file
from evomerge.recipes.resolve import Resolved, resolve

POOL = "pool: {base: base, members: {math: math, code: code}}\n"


@pytest.fixture
def told(models: Path) -> Callable[[str], tuple[str, list[tuple[str, ...]]]]:
    """The headline of a recipe file's merge, and its lines."""

    def tell(text: str) -> tuple[str, list[tuple[str, ...]]]:
        read = file.read(models / "recipe.yml", text)
        pool = ModelPool.open(read.pool, read.root)
        found = resolve(read, pool)
        lines = describe.lines(found.recipe, found, pool)
        return (
            describe.headline(found.recipe, found.names),
            [(one.parameter, one.model, one.where, one.value) for one in lines],
        )

    return tell


def test_a_merge_of_differences(told: Callable[[str], tuple[str, list[tuple[str, ...]]]]) -> None:
    headline, lines = told(POOL + "merge: {operator: task_arithmetic, parameters: {lambda: {math: 0.3, code: [0, 3]}}}")
    assert headline == "task_arithmetic of math, code over base"
    assert lines == [
        ("lambda", "math", "everywhere", "0.3"),
        ("lambda", "code", "embed, head", "0"),
        ("lambda", "code", "layers.*.attn.w, layers.*.mlp.w", "0, 1, 2, 3"),
    ]


def test_a_merge_of_merges_has_names(told: Callable[[str], tuple[str, list[tuple[str, ...]]]]) -> None:
    text = POOL + "merge: {operator: linear, sources: [near, math]}\nrecipes: {near: {operator: slerp}}"
    headline, _ = told(text)
    assert headline == "linear(normalize=false) of near, math"


def test_long_series_are_abbreviated() -> None:
    values = {f"layers.{layer}.w": float(layer) for layer in range(20)}
    assert describe._series(values) == [("layers.*.w", "0, 1, 2, ..., 17, 18, 19")]


def test_many_modules_are_counted() -> None:
    values = {f"layers.{layer}.experts.{expert}.w": float(layer) for layer in range(2) for expert in range(40)}
    ((where, _),) = describe._series(values)
    assert where.startswith("layers.*.experts.0.w, layers.*.experts.1.w, ")
    assert where.endswith("layers.*.experts.5.w and 34 more")


def test_values_that_change_within_tensors_are_a_span(models: Path) -> None:
    read = file.read(models / "recipe.yml", POOL + "merge: {operator: linear}")
    pool = ModelPool.open(read.pool, read.root)
    segments = Segment("all", 0, 30, (0.1, 0.9)), Segment("all", 30, pool.size, (0.4, 0.6))
    recipe = Recipe("linear", ("pool:math", "recipe:0123456789abcdef"), segments)
    found = describe.lines(recipe, Resolved(recipe), pool)
    assert [(one.model, one.where, one.value) for one in found] == [
        ("math", "over 2 stretches", "0.1 to 0.4"),
        ("recipe 01234567", "over 2 stretches", "0.6 to 0.9"),
    ]
