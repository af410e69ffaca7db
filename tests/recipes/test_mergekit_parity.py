"""Every stored result of mergekit's, from its YAML through the importer to files.

Ours are computed in float32 with float64 coefficients and rounded once. What differs by more than rounding stands in
one of these tables, with the reason.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.errors import EvomergeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.tokens import required
from evomerge.recipes.job import load
from tests.merge.mergekit.cases import POOLS, Case, cases

Floats = NDArray[np.float32]
Model = dict[str, Floats]

CASES = {case.name: case for case in cases()}

ULP = {"F32": 0.0, "BF16": 2.0**-7, "F16": 2.0**-10}
"""One unit in the last place, as a share of the value: both sides round, and may do so to different sides."""

ROWS = ("model.embed_tokens.weight", "lm_head.weight")

ROUNDING = 2e-6
"""Of a few operations in float32, as a share of the tensor's largest value."""

COARSE = {
    "karcher_bfloat16": "mergekit keeps directions in bfloat16",
    "linear_float16": "mergekit rounds the models to float16 before it merges them",
    "nuslerp_bfloat16": "mergekit takes norms and angle in bfloat16",
    "sce_out_bfloat16": "entries as in SELECTED (EQUAL) change the weights of all",
    "sce_tenth": "entries as in SELECTED (ROUNDED) change the weights of all",
    "task_arithmetic_bfloat16": "mergekit subtracts, weights and adds in bfloat16",
    "ties_rescaled": "one entry more or less, as in SELECTED, changes how much all are enlarged",
}
"""Only the leading digits agree: differences are less than 6 % of the largest value."""

ROUNDED = "mergekit rounds the number of entries to keep (or drop) down, ours to the nearest"
LOST = "mergekit computes divergences in float32, where those of close rows are lost in rounding"
EQUAL = "of equal magnitudes at a threshold mergekit keeps some, ours all"

SELECTED = {
    "arcee_fusion": (LOST, 13),
    "arcee_fusion_zero": (LOST, 16),
    "breadcrumbs": (ROUNDED, 4),
    "breadcrumbs_default": (ROUNDED, 4),
    "breadcrumbs_narrow": (ROUNDED, 2),
    "breadcrumbs_out_bfloat16": (EQUAL, 10),
    "breadcrumbs_ties": (ROUNDED, 6),
    "breadcrumbs_tiny": (f"{ROUNDED}, and at least one is kept", 4),
    "ties_bfloat16": (f"{EQUAL}; and bfloat16", 25),
    "ties_density_filters": (ROUNDED, 2),
    "ties_one": (ROUNDED, 1),
    "ties_out_bfloat16": (EQUAL, 15),
    "ties_sparse": (ROUNDED, 3),
}
"""Entries on the edge of being kept: why, and how many of a tensor's may differ."""

OPPOSED = "where experts oppose each other on average mergekit goes away from all of them, and ours stays at the base"
ALIKE = "mergekit weighs all experts alike where their mean squares sum to less than 1e-6"

AVOIDED = {
    "model_stock": (OPPOSED, {"model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj", "model.norm"}),
    "model_stock_bfloat16": (f"{OPPOSED}; and bfloat16", {""}),
    "model_stock_opposed": (OPPOSED, {"model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"}),
    "model_stock_out_bfloat16": (OPPOSED, {"model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"}),
    "model_stock_rows": (f"{OPPOSED}, row by row", {""}),
    "model_stock_tiny": (OPPOSED, {"model.layers.0", "lm_head"}),
    "sce": (ALIKE, {"model.layers.0"}),
    "sce_half": (ALIKE, {"model.layers.0"}),
    "ties_signed": (
        "mergekit divides by signed sums, so that a negative weight alone is added instead of taken away",
        {""},
    ),
}
"""Defects that ours has not: why, and the only tensors in which results may differ, by how their names begin."""

BUILT = {
    "della_tiny": "mergekit has no probability for a row of one entry; ours is the density",
    "multislerp_still_three": "where the weighted directions cancel mergekit stops, and ours is the weighted sum",
}
"""mergekit fails, and we do not."""

REFUSED = {
    "embedding_truncated": "a flag of mergekit's command does it, not the YAML",
    "linear_zero_sum": "weights that sum to zero have no shares; mergekit writes infinities",
}
"""mergekit builds something, and we do not."""


@pytest.fixture(autouse=True)
def _at_the_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(POOLS)  # where the paths in mergekit's recipes begin


def built(case: Case, folder: Path) -> Path:
    """The folder that ``evomerge merge`` writes for the case's YAML."""
    file = folder / "case.yml"
    file.write_text(case.yaml_text)
    (job,) = load([file])
    out = folder / "out"
    export(job.builder(1), job.resolved.recipe, job.resolved.ancestors, out, card="", dtype=job.dtype)
    return out


def tensors(out: Path) -> tuple[Model, dict[str, str]]:
    """All tensors as float32, and their dtypes."""
    source = Checkpoint(out)
    model = {name: source.floats(name).reshape(entry.shape) for name, entry in source.entries.items()}
    return model, {name: entry.dtype for name, entry in source.entries.items()}


def by_token(case: Case, model: Model, out: Path) -> tuple[Model, Model]:
    """Ours and theirs with the rows of embeddings and head in the order of their tokens' names."""
    ours, theirs = required(out), case.vocabulary
    assert ours.keys() == theirs.keys()
    tokens = sorted(theirs)

    def sorted_rows(one: Model, numbers: Mapping[str, int]) -> Model:
        return {n: x[[numbers[token] for token in tokens]] if n in ROWS else x for n, x in one.items()}

    return sorted_rows(model, ours), sorted_rows(case.tensors, theirs)


def differing(case: Case, ours: Model, theirs: Model) -> dict[str, tuple[float, int]]:
    """Tensors that differ by more than rounding: by which share of the largest value, and in how many entries."""
    found = {}
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        largest = float(np.abs(expected).max()) or 1.0
        difference = np.abs(ours[name] - expected)
        beyond = difference > ROUNDING * largest + ULP[case.dtypes[name]] * np.abs(expected)
        if beyond.any():
            found[name] = float(difference.max()) / largest, int(beyond.sum())
    return found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tensors and case.seeds == 1])
def test_the_same_tensors(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if name in REFUSED:
        with pytest.raises(EvomergeError):
            built(case, tmp_path)
        return
    out = built(case, tmp_path)
    ours, dtypes = tensors(out)
    assert {name: dtypes[name] for name in case.dtypes} == case.dtypes
    assert not case.whole or ours.keys() == case.tensors.keys()
    found = differing(case, *(by_token(case, ours, out) if case.vocabulary else (ours, case.tensors)))
    if name in COARSE:
        assert max(share for share, _ in found.values()) < 0.06
    elif name in SELECTED:
        _, most = SELECTED[name]
        assert 0 < max(entries for _, entries in found.values()) <= most
    elif name in AVOIDED:
        _, places = AVOIDED[name]
        assert found  # or the table says too much
        assert all(tensor.startswith(tuple(places)) for tensor in found)
    else:
        assert not found
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == case.config["num_hidden_layers"]
    assert config["vocab_size"] == case.config["vocab_size"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.error])
def test_what_mergekit_refuses(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if name in BUILT:
        ours, _ = tensors(built(case, tmp_path))
        assert all(np.isfinite(tensor).all() for tensor in ours.values())
    else:
        with pytest.raises(EvomergeError):
            built(case, tmp_path)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.seeds > 1])
def test_random_methods_agree_on_average(name: str, tmp_path: Path) -> None:
    case, draws = CASES[name], 64
    file = tmp_path / "case.yml"
    file.write_text(case.yaml_text)
    (job,) = load([file])
    builder, recipe = job.builder(1), job.resolved.recipe
    slots = {slot.name: slot for slot in job.pool.layout.slots}
    seeded = [replace(recipe, options=(*recipe.options[:-1], ("seed", seed))) for seed in range(draws)]
    assert seeded[0].options == recipe.options
    vectors = [builder.resolve(one) for one in seeded]
    for tensor, theirs in case.tensors.items():
        slot = slots[tensor]
        values = [builder.read(vector, slot, 0, slot.size).reshape(slot.shape) for vector in vectors]
        error = case.deviations[tensor] * np.sqrt(1 / draws + 1 / case.seeds)
        assert (np.abs(np.mean(values, axis=0) - theirs) <= 6 * error + 1e-6).all()
        assert (len({value.tobytes() for value in values}) > 1) == (case.deviations[tensor] > 0).any()
