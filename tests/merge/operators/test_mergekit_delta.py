"""What mergekit 0.1.5 makes of the same models with the delta operators, and where ours is deliberately another.

mergekit rounds the number of entries that survive down, ours to nearest: the recipes here ask for the densities that
mergekit comes down to, tensor by tensor. Its masks are its own: of random methods the distributions are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Segment
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import from_float32, to_float32
from evomerge.settings import PoolSettings
from tests.merge.mergekit.cases import POOLS, cases

CASES = {case.name: case for case in cases()}
Floats = NDArray[np.float32]
Model = dict[str, Floats]
Options = tuple[tuple[str, str | int | float | bool], ...]
Values = Callable[[int], tuple[float, ...]]
"""From the size of a tensor."""


@dataclass(frozen=True)
class Ours:
    """A case of mergekit's in evomerge's words."""

    case: str
    operator: str
    experts: tuple[str, ...]
    values: Values
    options: Options = ()
    pool: str = "float32"


def down(share: float, size: int) -> float:
    """The share that mergekit comes down to."""
    return max(1, int(share * size)) / size


def ties(weights: tuple[float, ...], densities: tuple[float, ...], scale: float = 1.0) -> Values:
    return lambda size: (*weights, *(down(density, size) for density in densities), scale)


def crumbs(
    weights: tuple[float, ...], densities: tuple[float, ...], gammas: tuple[float, ...], scale: float = 1.0
) -> Values:
    return lambda size: (
        *weights,
        *(down(density, size) for density in densities),
        *(int(gamma * size) / size for gamma in gammas),
        scale,
    )


def fixed(*values: float) -> Values:
    return lambda _: values


ALL = ("chat", "code", "math")
TIES: Options = (("scope", "tensor"), ("zero", "plus"))
SUM = ("aggregate", "sum")
L1 = ("rescale", "l1")
HALF = (0.5, 0.5, 0.5)
THIRDS = (0.5, 0.3, 0.2)
SAME = [
    Ours("ties", "ties", ALL, ties(THIRDS, HALF), TIES),
    Ours("ties_sparse", "ties", ALL, ties((1.0, 1.0, 1.0), (0.2, 0.05, 0.33), 0.6), TIES),
    Ours("ties_dense", "ties", ALL, ties(THIRDS, (1.0, 1.0, 1.0)), TIES),
    Ours("ties_raw", "ties", ALL, ties(THIRDS, HALF), (*TIES, SUM)),
    Ours("ties_int8_mask", "ties", ("code", "math"), ties((0.8, 0.3), (0.5, 0.5)), TIES),
    Ours("ties_rescaled", "ties", ("chat", "math"), ties((0.5, 0.5), (0.3, 0.3)), (*TIES, L1)),
    Ours("ties_one", "ties", ("math",), ties((0.4,), (0.3,)), TIES),
    Ours("ties_tiny", "ties", ("one", "two"), ties((0.5, 0.5), (0.1, 0.1)), TIES, "tiny"),
    Ours("dare_linear_dense", "dare_linear", ALL, fixed(0.5, 0.8, -0.3, 1.0, 1.0, 1.0, 1.0), (L1,)),
    Ours("dare_ties_dense", "dare_ties", ALL, fixed(*THIRDS, 1.0, 1.0, 1.0, 1.0), (L1,)),
    Ours(
        "dare_ties_normalized",
        "dare_ties",
        ("code", "math"),
        fixed(0.3, 0.2, 1.0, 1.0, 1.3),
        (L1, ("aggregate", "mean")),
    ),
    Ours("della_dense", "della", ALL, fixed(*THIRDS, 1.0, 1.0, 1.0, 0.3, 0.3, 0.3, 1.0), (L1,)),
    Ours("della_linear_dense", "della_linear", ("chat", "math"), fixed(0.5, 0.8, 1.0, 1.0, 0.3, 0.3, 0.7), (L1,)),
    Ours("breadcrumbs", "breadcrumbs", ("chat", "math"), crumbs((0.5, 0.4), (0.7, 0.5), (0.1, 0.05))),
    Ours("breadcrumbs_default", "breadcrumbs", ("chat", "math"), crumbs((0.5, 0.4), (0.9, 0.9), (0.01, 0.01))),
    Ours("breadcrumbs_narrow", "breadcrumbs", ("math",), crumbs((1.0,), (0.95,), (0.2,))),
    Ours("breadcrumbs_dense", "breadcrumbs", ("math",), crumbs((1.0,), (1.0,), (0.2,))),
    Ours("breadcrumbs_ties", "breadcrumbs_ties", ALL, crumbs((0.5, 0.4, 0.3), (0.7, 0.6, 0.5), (0.1, 0.02, 0.05), 0.8)),
    Ours("sce_one", "sce", ("math",), fixed(0.9, 1.0)),
    Ours("sce_tiny", "sce", ("one", "two"), lambda size: (down(0.5, size), 1.0), pool="tiny"),
    Ours("arcee_fusion_tiny", "arcee_fusion", ("one",), fixed(1.5), pool="tiny"),
    Ours("ram", "ram", ("code", "math"), fixed(1e-5)),
    Ours("ram_epsilon", "ram", ALL, fixed(0.002)),
    Ours("ramplus_tl", "ram_plus", ALL, fixed(0.002, 0.3, 0.5)),
]


def build(ours: Ours, *tensors: str) -> Model:
    """The tensors (default: all) of the merged model."""
    sources = ("base", *ours.experts)
    pool = ModelPool.open(PoolSettings(members={name: name for name in sources}), POOLS / ours.pool)
    segments = tuple(
        Segment("all", slot.offset, slot.offset + slot.size, ours.values(slot.size)) for slot in pool.layout.slots
    )
    builder = Builder(pool, "table")
    recipe = Recipe(ours.operator, tuple(f"pool:{name}" for name in sources), segments, ours.options)
    vector = builder.resolve(recipe)
    slots = [slot for slot in pool.layout.slots if not tensors or slot.name in tensors]
    return {slot.name: builder.read(vector, slot, 0, slot.size).reshape(slot.shape) for slot in slots}


def different(found: Floats, expected: Floats) -> NDArray[np.bool_]:
    """Where they differ by more than rounding."""
    wrong: NDArray[np.bool_] = np.abs(found - expected) > 1e-6 * np.abs(expected).max()
    return wrong


def rounded(values: Floats) -> Floats:
    """As it would be stored in bfloat16."""
    return to_float32(from_float32(values.reshape(-1), "BF16"), "BF16").reshape(values.shape)


def name(ours: Ours) -> str:
    return ours.case


@pytest.mark.parametrize("ours", SAME, ids=name)
def test_the_models_are_the_same(ours: Ours) -> None:
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        assert not different(found[tensor], expected).any(), tensor


def test_a_negative_weight_keeps_its_sign_where_mergekit_turns_it() -> None:
    """mergekit divides what agrees by its signed weights: of an expert that stands alone the weight cancels out."""
    ours = Ours("ties_signed", "ties", ("code", "math"), ties((0.8, -0.3), (0.5, 0.5)), TIES)
    found, base = build(ours), build(replace(ours, values=fixed(0.0, 0.0, 1.0, 1.0, 1.0)))
    ratios = []
    for tensor, expected in CASES[ours.case].tensors.items():
        theirs, mine = expected - base[tensor], found[tensor] - base[tensor]
        apart = different(found[tensor], expected) & (np.abs(mine) > 1e-4)  # beside which rounding counts little
        ratios.append(theirs[apart] / mine[apart])
    ratio = np.concatenate(ratios)
    alone, both = np.isclose(ratio, -1, atol=0.01), np.isclose(ratio, (0.8 + 0.3) / (0.8 - 0.3), atol=0.01)
    assert (alone | both).all()
    assert alone.sum() > 100


def test_of_a_tiny_tensor_something_survives_where_mergekit_may_drop_all() -> None:
    ours = Ours("breadcrumbs_tiny", "breadcrumbs", ("one", "two"), crumbs((0.5, 0.5), (0.3, 0.6), (0.01, 0.01)))
    ours = replace(ours, pool="tiny")
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        if int(0.3 * expected.size) >= 1:
            assert not different(found[tensor], expected).any()
        else:
            assert np.count_nonzero(different(found[tensor], expected)) <= 1 + (int(0.6 * expected.size) < 1)


SCE = [
    Ours("sce", "sce", ("code", "math"), fixed(1.0, 1.0)),
    Ours("sce_half", "sce", ALL, lambda size: (0.5, 1.0)),
    Ours("sce_tenth", "sce", ALL, lambda size: (int(0.1 * size) / size, 1.0)),
]


@pytest.mark.parametrize("ours", SCE, ids=name)
def test_sce_weighs_small_deltas_too(ours: Ours) -> None:
    """Where mean squares sum to less than 1e-6 (layer 0) mergekit's weights are equal; elsewhere the models agree."""
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        assert different(found[tensor], expected).any() == tensor.startswith("model.layers.0")


@pytest.mark.parametrize("expert", ["math", "code"])
def test_arcee_fusion_is_the_same_where_rows_differ_enough(expert: str) -> None:
    """Divergences of 1e-6 are rounding in mergekit's float32, so rows of layer 0 are chosen somewhat at random."""
    ours = Ours("arcee_fusion" if expert == "math" else "arcee_fusion_zero", "arcee_fusion", (expert,), fixed(1.5))
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        share = 0.15 if tensor.startswith("model.layers.0") else 0.005
        assert different(found[tensor], expected).mean() <= share, tensor


TIED = [
    Ours("ties_out_bfloat16", "ties", ALL, ties(THIRDS, HALF), TIES, "bfloat16"),
    Ours(
        "breadcrumbs_out_bfloat16",
        "breadcrumbs",
        ("code", "math"),
        crumbs((0.5, 0.4), (0.7, 0.3), (0.1, 0.05)),
        pool="bfloat16",
    ),
    Ours("sce_out_bfloat16", "sce", ALL, lambda size: (int(0.3 * size) / size, 1.0), pool="bfloat16"),
]


@pytest.mark.parametrize("ours", TIED, ids=name)
def test_of_bfloat16_models_all_but_ties_agree(ours: Ours) -> None:
    """Of entries that equal the smallest survivor ours keeps all, and mergekit those that an unstable sort puts first.

    Layer 0 is left out of SCE, for its weights.
    """
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        if not (ours.operator == "sce" and tensor.startswith("model.layers.0")):
            close = np.isclose(rounded(found[tensor]), expected, rtol=2**-7, atol=0)
            assert close.mean() >= (0.9 if expected.size > 100 else 0.8), tensor


def test_a_recipe_in_bfloat16_agrees_in_the_leading_digits() -> None:
    """There mergekit also subtracts, weighs and adds in bfloat16."""
    ours = Ours("ties_bfloat16", "ties", ALL, ties(THIRDS, HALF), TIES, "bfloat16")
    found = build(ours)
    for tensor, expected in CASES[ours.case].tensors.items():
        close = np.isclose(found[tensor], expected, rtol=0, atol=0.01 * np.abs(expected).max())
        assert close.mean() >= 0.9, tensor


RANDOM = [
    Ours("dare_linear_random", "dare_linear", ("code",), fixed(1.0, 0.3, 1.0), (L1,)),
    Ours("dare_linear_unscaled", "dare_linear", ("code",), fixed(1.0, 0.3, 1.0), (("rescale", "none"),)),
    Ours("dare_ties_random", "dare_ties", ALL, fixed(*THIRDS, *HALF, 1.0), (L1,)),
    Ours("della_linear_random", "della_linear", ("chat",), fixed(1.0, 0.4, 0.5, 1.0), (L1,)),
    Ours("della_random", "della", ALL, fixed(*THIRDS, *HALF, 0.3, 0.3, 0.3, 1.0), (L1,)),
]


@pytest.mark.parametrize("ours", RANDOM, ids=name)
def test_random_methods_have_the_same_mean_and_deviation(ours: Ours) -> None:
    runs, case = 60, CASES[ours.case]
    drawn = [build(replace(ours, options=(*ours.options, ("seed", seed))), *case.tensors) for seed in range(runs)]
    for tensor, expected in case.tensors.items():
        each = np.stack([one[tensor] for one in drawn]).astype(np.float64)
        deviation = case.deviations[tensor]
        moves = deviation > 1e-6
        np.testing.assert_allclose(each.mean(axis=0)[~moves], expected[~moves], rtol=0, atol=1e-6)
        if moves.any():
            errors = deviation[moves] * np.sqrt(1 / runs + 1 / case.seeds)
            z = (each.mean(axis=0) - expected)[moves] / errors
            assert np.abs(z).max() < 6
            assert np.mean(z**2) < 1 + 6 * np.sqrt(2 / z.size) + 0.2
            assert np.median(each.std(axis=0, ddof=1)[moves] / deviation[moves]) == pytest.approx(1, abs=0.1)


def test_where_mergekit_fails_there_is_a_result() -> None:
    assert CASES["della_tiny"].error
    assert CASES["della_epsilon"].error
    tiny = Ours("", "della", ("one", "two"), fixed(0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 1.0), (L1,), "tiny")
    assert all(np.isfinite(tensor).all() for tensor in build(tiny).values())
