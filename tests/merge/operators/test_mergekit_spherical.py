"""What mergekit 0.1.5 makes of the same models, and where its results are deliberately not ours.

Ours are computed in float32 with coefficients, angles and norms in float64. mergekit computes in the ``dtype`` of a
recipe: of a recipe in bfloat16 only the leading digits can agree.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import from_float32, to_float32
from evomerge.settings import PoolSettings
from tests.merge.mergekit.cases import POOLS, cases

CASES = {case.name: case for case in cases()}
EXPERTS = ("chat", "code", "math")
SLERP = (("angle", "per_tensor"), ("straight", math.sqrt(1 - 0.9995**2)))
KARCHER = (("rounds", 10), ("tolerance", 1e-5))
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Ours:
    """A case of mergekit's in evomerge's words."""

    case: str
    operator: str
    sources: tuple[str, ...]
    values: tuple[float, ...]
    options: tuple[tuple[str, str | int | float | bool], ...] = ()
    pool: str = "float32"


BASED = ("base", *EXPERTS)
FLOAT32 = [
    Ours("linear", "linear", EXPERTS, (0.8, 0.5, 0.3), (("normalize", True),)),
    Ours("linear_raw", "linear", EXPERTS, (0.8, 0.5, -0.2)),
    Ours("linear_signed", "linear", ("base", "chat", "math"), (-0.5, 0.7, 0.6), (("normalize", True),)),
    Ours("linear_global_weight", "linear", EXPERTS, (0.25, 0.25, 0.25)),
    Ours("linear_one", "linear", ("math",), (0.5,), (("normalize", True),)),
    Ours("task_arithmetic", "task_arithmetic", BASED, (0.5, 0.8, -0.3)),
    Ours("task_arithmetic_lambda", "task_arithmetic", ("base", "chat", "math"), (0.7 * 0.5, 0.7 * 0.8)),
    Ours("task_arithmetic_normalized", "task_arithmetic", ("base", "chat", "math"), (0.5 / 1.3, 0.8 / 1.3)),
    Ours("task_arithmetic_cancelled", "task_arithmetic", ("base", "chat", "math"), (0.5, -0.5)),
    Ours("task_arithmetic_density", "task_arithmetic", ("base", "chat", "math"), (0.5, 0.8)),
    Ours("slerp", "slerp", ("base", "math"), (0.4,), SLERP),
    Ours("slerp_beyond", "slerp", ("base", "math"), (1.5,), SLERP),
    Ours("slerp_close", "slerp", ("base", "chat"), (0.4,), SLERP),
    Ours("slerp_reversed", "slerp", ("base", "math"), (0.25,), SLERP),
    Ours("slerp_tiny", "slerp", ("one", "two"), (0.3,), SLERP, "tiny"),
    Ours("nuslerp", "nuslerp", ("code", "math"), (0.2 / 0.9,)),
    Ours("nuslerp_cancelled", "nuslerp", ("code", "math"), (0.5,)),
    Ours("nuslerp_row_wise_flattened", "nuslerp", ("code", "math"), (0.3,)),
    Ours("nuslerp_base", "task_nuslerp", ("base", "code", "math"), (0.3,)),
    Ours("nuslerp_rows", "nuslerp_axis", ("code", "math"), (0.3,)),
    Ours("nuslerp_columns", "nuslerp_axis", ("code", "math"), (0.3,), (("axis", "first"),)),
    Ours("nuslerp_base_rows", "task_nuslerp_axis", ("base", "code", "math"), (0.6,)),
    Ours("nuslerp_tiny", "task_nuslerp_axis", ("base", "one", "two"), (0.4,), pool="tiny"),
    Ours("multislerp", "nlerp", EXPERTS, (0.8, 0.5, 0.3)),
    Ours("multislerp_base", "task_nlerp", BASED, (0.5, 0.3, 0.2)),
    Ours("multislerp_raw", "task_nlerp", ("base", "chat", "math"), (0.5, 0.8), (("normalize", False),)),
    Ours("multislerp_one", "task_nlerp", ("base", "math"), (0.3,)),
    Ours("multislerp_still", "task_nlerp", ("base", "one", "same"), (0.6, 0.4), pool="tiny"),
    Ours("multislerp_tiny", "task_nlerp", ("base", "one", "two"), (0.6, 0.4), pool="tiny"),
    Ours("karcher", "karcher", EXPERTS, (1.0, 1.0, 1.0), KARCHER),
    Ours("karcher_two", "karcher", ("code", "math"), (1.0, 1.0)),
    Ours("karcher_tiny", "karcher", ("one", "two"), (1.0, 1.0), KARCHER, "tiny"),
    Ours("nearswap", "nearswap", ("base", "math"), (0.001,)),
    Ours("passthrough", "passthrough", ("math",), (1.0,)),
]
STOCK = [
    Ours("model_stock", "model_stock", BASED, (1.0,)),
    Ours("model_stock_rows", "model_stock_rows", BASED, (1.0,)),
    Ours("model_stock_opposed", "model_stock", ("base", "code", "math"), (1.0,)),
    Ours("model_stock_tiny", "model_stock", ("base", "one", "two"), (1.0,), pool="tiny"),
]
BFLOAT16 = [
    Ours("linear_bfloat16", "linear", EXPERTS, (0.5, 0.3, 0.2), pool="bfloat16"),
    Ours("linear_out_bfloat16", "linear", EXPERTS, (0.5, 0.3, 0.2), pool="bfloat16"),
    Ours("task_arithmetic_out_bfloat16", "task_arithmetic", BASED, (0.5, 0.3, 0.2), pool="bfloat16"),
    Ours("slerp_bfloat16", "slerp", ("base", "math"), (0.4,), SLERP, "bfloat16"),
    Ours("nuslerp_out_bfloat16", "nuslerp", ("code", "math"), (0.3,), pool="bfloat16"),
    Ours("karcher_out_bfloat16", "karcher", EXPERTS, (1.0, 1.0, 1.0), KARCHER, "bfloat16"),
]
COARSE = [
    Ours("task_arithmetic_bfloat16", "task_arithmetic", BASED, (0.5, 0.3, 0.2), pool="bfloat16"),
    Ours("nuslerp_bfloat16", "nuslerp", ("code", "math"), (0.3,), pool="bfloat16"),
    Ours("karcher_bfloat16", "karcher", EXPERTS, (1.0, 1.0, 1.0), KARCHER, "bfloat16"),
]


def build(ours: Ours) -> dict[str, Floats]:
    members = {name: name for name in dict.fromkeys(ours.sources)}
    pool = ModelPool.open(PoolSettings(members=members), POOLS / ours.pool)
    segments = (Segment("all", 0, pool.size, ours.values),)
    recipe = Recipe(ours.operator, tuple(f"pool:{name}" for name in ours.sources), segments, ours.options)
    builder = Builder(pool, "table")
    vector = builder.resolve(recipe)
    return {
        slot.name: np.concatenate([values for _, values in builder.chunks(vector, slot)]).reshape(slot.shape)
        for slot in pool.layout.slots
    }


def rounded(values: Floats) -> Floats:
    """As it would be stored in bfloat16."""
    return to_float32(from_float32(values.reshape(-1), "BF16"), "BF16").reshape(values.shape)


def name(ours: Ours) -> str:
    return ours.case


@pytest.mark.parametrize("ours", FLOAT32, ids=name)
def test_in_float32_the_models_are_the_same(ours: Ours) -> None:
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        np.testing.assert_allclose(found[tensor], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("ours", BFLOAT16, ids=name)
def test_rounded_to_bfloat16_at_the_end_they_differ_by_one_step_at_most(ours: Ours) -> None:
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        mine = rounded(found[tensor])
        np.testing.assert_allclose(mine, expected, rtol=2**-7, atol=0)
        assert np.mean(mine == expected) > 0.98


@pytest.mark.parametrize("ours", COARSE, ids=name)
def test_what_mergekit_computes_in_bfloat16_agrees_in_the_leading_digits(ours: Ours) -> None:
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        np.testing.assert_allclose(found[tensor], expected, rtol=0, atol=0.015 * np.abs(expected).max())


def stock(base: Doubles, experts: Doubles, defects: bool) -> Doubles:
    """Model Stock of rows. mergekit's defects: lengths whose product is below 1e-6, and angles beyond a right one."""
    taus = experts - base
    lengths = np.linalg.norm(taus, axis=-1)
    pairs = list(combinations(range(len(taus)), 2))
    scales = [np.maximum(lengths[i] * lengths[j], 1e-6 if defects else 1e-300) for i, j in pairs]
    c = np.mean([(taus[i] * taus[j]).sum(axis=-1) / scale for (i, j), scale in zip(pairs, scales, strict=True)], axis=0)
    c = (c if defects else np.maximum(c, 0.0))[:, None]
    g = len(taus) * c / (1.0 + (len(taus) - 1) * c)
    merged: Doubles = g * experts.mean(axis=0) + (1.0 - g) * base
    return merged


@pytest.mark.parametrize("ours", STOCK, ids=name)
def test_model_stock_is_the_same_but_for_two_defects(ours: Ours) -> None:
    found = build(ours)
    models = [build(Ours("", "passthrough", (source,), (1.0,), pool=ours.pool)) for source in ours.sources]
    for tensor, expected in CASES[ours.case].tensors.items():
        columns = expected.shape[-1] if ours.operator == "model_stock_rows" else expected.size
        base, *experts = (model[tensor].astype(np.float64).reshape(-1, columns) for model in models)
        for result, defects in ((found[tensor], False), (expected, True)):
            mine = stock(base, np.stack(experts), defects).reshape(expected.shape)
            np.testing.assert_allclose(result, mine, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_weights_that_sum_to_zero_are_refused_where_mergekit_writes_infinities() -> None:
    assert not np.isfinite(CASES["linear_zero_sum"].tensors["model.norm.weight"]).any()
    with pytest.raises(RecipeError, match="sum to zero"):
        build(Ours("", "linear", ("chat", "code"), (0.5, -0.5), (("normalize", True),)))


def test_experts_that_moved_nothing_leave_the_base_where_mergekit_ends() -> None:
    assert CASES["multislerp_still_three"].error
    found = build(Ours("", "task_nlerp", ("base", "one", "same", "again"), (0.6, 0.2, 0.2), pool="tiny"))
    still = "model.layers.0.mlp.gate_proj.weight"  # of which "one" moved nothing, either
    base = build(Ours("", "passthrough", ("base",), (1.0,), pool="tiny"))
    np.testing.assert_allclose(found[still], base[still], rtol=1e-6)


def test_one_model_too_many_is_refused_as_there() -> None:
    for case, operator, sources in (
        ("passthrough_two", "passthrough", ("math", "chat")),
        ("slerp_three", "slerp", BASED[:3]),
        ("model_stock_one", "model_stock", ("base", "math")),
    ):
        assert CASES[case].error
        with pytest.raises(RecipeError, match="sources"):
            build(Ours("", operator, sources, (0.5,)))
