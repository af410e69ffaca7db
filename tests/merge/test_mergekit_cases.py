"""The stored results of mergekit are those of the recipes beside them."""

import numpy as np
import pytest
import yaml

from evomerge.merge.checkpoint import Checkpoint
from tests.merge.mergekit.cases import HERE, POOLS, Case, cases

CASES = cases()
RECIPES = yaml.safe_load((HERE / "recipes.yaml").read_text(encoding="utf-8"))


def models(case: Case) -> set[str]:
    """Every checkpoint that a case names, adapters left out."""
    found = set()
    pending = [yaml.safe_load(case.yaml_text)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found |= {value[key].split("+")[0] for key in ("model", "base_model") if isinstance(value.get(key), str)}
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return found


def test_every_recipe_has_its_case_and_every_case_its_recipe() -> None:
    assert {case.name: case.yaml_text for case in CASES} == {name: recipe["merge"] for name, recipe in RECIPES.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_holds_tensors_or_says_what_went_wrong(case: Case) -> None:
    assert bool(case.tensors) != bool(case.error)
    assert case.deviations.keys() == (case.tensors.keys() if case.seeds > 1 else set())
    assert all(Checkpoint(POOLS / model).entries for model in models(case))


def test_the_tensors_are_those_that_the_recipe_names() -> None:
    case = next(case for case in CASES if case.name == "linear")
    weights = {"chat": 0.8, "code": 0.5, "math": 0.3}
    sources = {name: Checkpoint(POOLS / "float32" / name) for name in weights}
    for name, found in case.tensors.items():
        expected = sum(weight * sources[model].floats(name).astype(float) for model, weight in weights.items()) / 1.6
        np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-6)
