"""Recipes as mergekit YAMLs: out and in again they are the same recipe, or else the same tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.errors import ExportError
from evomerge.merge.build import Builder
from evomerge.merge.export import planned
from evomerge.merge.pool import ModelPool
from evomerge.recipes.job import Job, load
from evomerge.recipes.mergekit.writing import Exported, exported
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint
from tests.merge.mergekit.cases import POOLS, cases

POOL = "pool: {base: base, members: {math: math, code: code}}\n"
TOKENIZER = json.dumps(
    {"version": "1.0", "model": {"type": "WordLevel", "vocab": {one: at for at, one in enumerate("abcdef")}}}
)
CASES = {case.name: case for case in cases()}

SUMMED = {
    "model_stock",
    "model_stock_bfloat16",
    "model_stock_opposed",
    "model_stock_out_bfloat16",
    "model_stock_tiny",
    "slices_slerp",
    "vocabulary_base",
    "vocabulary_legacy",
    "vocabulary_named",
    "vocabulary_tokens",
    "vocabulary_union",
}
"""Written as a weighted sum, with other names or operators than it was read with."""

REFUSED = {
    "model_stock_rows": "mergekit has no method like model_stock_rows, and it is no weighted sum of the pool's models",
    "ties_signed": "mergekit divides by signed sums of weights",
}


def said(job: Job) -> Exported:
    resolved = job.resolved
    return exported(job.builder(1), resolved.recipe, resolved.ancestors, job.settings, dtype=job.dtype)


def tensors(job: Job) -> dict[str, NDArray[np.float32]]:
    builder = job.builder(1)
    vector = builder.resolve(job.resolved.recipe, job.resolved.ancestors)
    return {slot.name: builder.read(vector, slot, 0, slot.size) for slot in job.pool.layout.slots}


@pytest.mark.parametrize("name", CASES)
def test_out_and_in_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(POOLS)
    (tmp_path / "case.yml").write_text(CASES[name].yaml_text)
    try:
        (job,) = load([tmp_path / "case.yml"])
        job.builder(1).resolve(job.resolved.recipe, job.resolved.ancestors)
    except Exception:
        return
    if name in REFUSED:
        with pytest.raises(ExportError, match=REFUSED[name]):
            said(job)
        return
    (tmp_path / "again.yml").write_text(said(job).text)
    (again,) = load([tmp_path / "again.yml"])
    assert planned(again.pool, again.dtype) == planned(job.pool, job.dtype)
    if name in SUMMED:
        for tensor, values in tensors(job).items():
            np.testing.assert_allclose(tensors(again)[tensor], values, rtol=1e-6, atol=1e-7)
    else:
        assert again.resolved.recipe.digest == job.resolved.recipe.digest


@pytest.fixture
def written(models: Path) -> Callable[..., Exported]:
    """The YAML for a recipe file's text; keywords change the recipe."""

    def write(text: str, change: Callable[[Recipe], Recipe] = lambda recipe: recipe, **further: Any) -> Exported:
        (models / "recipe.yml").write_text(text)
        (job,) = load([models / "recipe.yml"])
        recipe = change(job.resolved.recipe)
        return exported(Builder(job.pool, "table"), recipe, job.resolved.ancestors, job.settings, **further)

    return write


def document(found: Exported) -> Any:
    return yaml.safe_load(found.text)


def test_the_plainest_recipe(written: Callable[..., Exported], models: Path) -> None:
    text = POOL + "merge: {operator: linear, parameters: {weight: {math: 0.25, code: 0.75}}}"
    assert document(written(text, dtype="bfloat16")) == {
        "merge_method": "linear",
        "models": [
            {"model": str(models / "math"), "parameters": {"weight": 0.25}},
            {"model": str(models / "code"), "parameters": {"weight": 0.75}},
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


def test_chat_template_and_rows_of_tokens(written: Callable[..., Exported], models: Path) -> None:
    chat = "{{ messages[0].content }}"
    rules = "{a: {source: base, token: b}, c: {source: code, token: 3, force: true}, d: {}}"
    pool = POOL.replace("}}", f"}}, vocabulary: base, tokens: {rules}, chat_template: '{chat}'}}")
    for name in ("base", "math", "code"):
        save_checkpoint(models / name / "embedded.safetensors", {"embed_tokens.weight": np.zeros((6, 4), np.float32)})
        (models / name / "embedded.safetensors").replace(models / name / "model.safetensors")
        (models / name / "tokenizer.json").write_text(TOKENIZER)
    found = document(written(pool + "merge: {operator: linear, parameters: {weight: {math: 0.25, code: 0.75}}}"))
    assert found["chat_template"] == chat
    assert found["tokenizer"]["tokens"] == {
        "a": {"source": {"kind": "model_token", "model": str(models / "base"), "token": "b"}, "force": False},
        "c": {"source": {"kind": "model_token", "model": str(models / "code"), "token_id": 3}, "force": True},
        "d": {"source": {"kind": "zero"}, "force": False},
    }


def test_merges_of_merges_are_one_sum(written: Callable[..., Exported]) -> None:
    found = document(
        written(
            POOL
            + "merge: {operator: task_arithmetic, sources: [mean], parameters: {lambda: [{filter: head, value: 0}, "
            + "{value: 0.5}]}}\nrecipes: {mean: {operator: linear, sources: [math, code]}}"
        )
    )
    weights = {Path(one["model"]).name: one["parameters"]["weight"] for one in found["models"]}
    assert found["merge_method"] == "linear"
    assert weights == {
        "math": [{"filter": "head", "value": 0.0}, {"value": 0.25}],
        "code": [{"filter": "head", "value": 0.0}, {"value": 0.25}],
        "base": [{"filter": "head", "value": 1.0}, {"value": 0.5}],
    }


def test_what_is_left_out_is_the_bases(written: Callable[..., Exported]) -> None:
    pool = "pool: {base: base, members: {math: math, code: code}, exclude: [head]}\n"
    ties = document(written(pool + "merge: {operator: ties, options: {scope: tensor, zero: plus}}"))
    assert ties["merge_method"] == "ties"
    weight = [{"filter": "head", "value": 0.0}, {"value": 1.0}]
    assert [one["parameters"]["weight"] for one in ties["models"]] == [weight, weight]
    slerp = document(written(pool + "merge: {operator: slerp}"))
    assert slerp["merge_method"] == "linear"
    base = next(one for one in slerp["models"] if Path(one["model"]).name == "base")
    assert base["parameters"]["weight"] == [{"filter": "head", "value": 1.0}, {"value": 0.0}]


@pytest.mark.parametrize(
    ("merge", "method"),
    [
        ("{operator: karcher}", "karcher"),
        ("{operator: karcher, parameters: {weight: {math: 1, code: 2}}}", "linear"),
        (
            "{operator: slerp, sources: [math, code], options: {angle: per_tensor, straight: 0.03161882350752246}}",
            "slerp",
        ),
        ("{operator: slerp, sources: [math, code]}", "linear"),
        ("{operator: layer_swap, parameters: {b: 1, u: 1, t: 0}}", "linear"),
        ("{operator: nuslerp_axis, options: {axis: first}}", "nuslerp"),
    ],
)
def test_a_method_or_else_a_sum(merge: str, method: str, written: Callable[..., Exported]) -> None:
    assert document(written(f"{POOL}merge: {merge}"))["merge_method"] == method


def test_random_methods_are_told_apart(written: Callable[..., Exported]) -> None:
    dare = "merge: {operator: dare_linear, options: {rescale: l1}, parameters: {density: %s}}"
    assert written(POOL + dare % 1).notes == ()
    (note,) = written(POOL + dare % 0.5).notes
    assert note == "dare_linear draws at random, and mergekit draws otherwise: another model of the same kind"


@pytest.mark.parametrize("operator", ["sce", "arcee_fusion"])
def test_where_mergekit_makes_something_else_it_is_told(operator: str, written: Callable[..., Exported]) -> None:
    (note,) = written(f"{POOL}merge: {{operator: {operator}, sources: [math]}}").notes
    assert note.startswith("mergekit")


REASONS = {
    "parameter": (
        "merge: {operator: sce, parameters: {lambda: 0.5}}",
        "mergekit's sce has no lambda, which is 1 there, and it is no weighted sum of the pool's models",
    ),
    "operator": (
        "merge: {operator: widen}",
        "mergekit has no method like widen, and it is no weighted sum of the pool's models",
    ),
    "option": (
        "merge: {operator: ties}",
        "mergekit's ties has nothing like scope = model, and it is no weighted sum",
    ),
    "merges of merges": (
        "merge: {operator: nearswap, sources: [a]}\nrecipes: {a: {operator: linear}}",
        "it is a merge of merges, and a YAML holds but one, and it is no weighted sum",
    ),
    "left out": (
        "merge: {operator: nearswap, sources: [math]}",
        "tensors such as 'head' are left out (pool.exclude), and nearswap merges all, and it is no weighted sum",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_why_not(case: str, written: Callable[..., Exported]) -> None:
    text, reason = REASONS[case]
    pool = POOL.replace("code}}", "code}, exclude: [head]}") if case == "left out" else POOL
    with pytest.raises(ExportError) as caught:
        written(pool + text)
    assert str(caught.value).startswith(f"the recipe cannot be written for mergekit: {reason}")


def test_noise_and_cuts_within_tensors_cannot_be_said(written: Callable[..., Exported]) -> None:
    def mutated(recipe: Recipe) -> Recipe:
        return Recipe(recipe.operator, recipe.sources, recipe.segments, recipe.options, Noise(0.1, 0, 0))

    def cut(recipe: Recipe) -> Recipe:
        (whole,) = recipe.segments
        halves = Segment("all", 0, 30, (0.1, 0.9)), Segment("all", 30, whole.stop, (0.9, 0.1))
        return Recipe(recipe.operator, recipe.sources, halves, recipe.options)

    linear = POOL + "merge: {operator: linear}"
    with pytest.raises(ExportError, match="there is random noise in it, which mergekit has not"):
        written(linear, mutated)
    with pytest.raises(ExportError, match="its values change within the tensor 'head', and mergekit's within none"):
        written(linear, cut)


def test_where_models_are(models: Path) -> None:
    settings = PoolSettings({"near": "math", "far": str(models / "code")}, "base")
    pool = ModelPool.open(settings, models)
    recipe = Recipe("linear", ("pool:near", "pool:far"), (Segment("all", 0, pool.size, (1.0, 0.5)),))
    hub = PoolSettings({"near": "hf:org/math@v1", "far": "hf:org/code+hf:org/adapter"}, "base")
    found = document(exported(Builder(pool, "table"), recipe, (), hub))
    assert [one["model"] for one in found["models"]] == ["org/math@v1", "org/code+org/adapter"]
    near = document(exported(Builder(pool, "table"), recipe, (), settings))
    assert [one["model"] for one in near["models"]] == [str(models / "math"), str(models / "code")]


def test_an_unknown_dtype_is_refused(written: Callable[..., Exported]) -> None:
    with pytest.raises(ExportError, match="unknown dtype 'int8'; choose one of float64"):
        written(POOL + "merge: {operator: linear}", dtype="int8")
