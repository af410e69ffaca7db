from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.merge.noise import bit_stream, uniform_bits
from evomerge.merge.operators.della import ranks
from evomerge.merge.operators.port import Values
from evomerge.testing.operator import MEMBERS, OperatorContract, Whole
from tests.merge.operators.test_ties import Options, merged

SEED = 5


def probabilities(tau: Any, density: float, spread: float) -> Any:
    """By sorting each row."""
    rows = np.abs(tau).reshape(-1, tau.shape[-1])
    e = spread * min(density, 1 - density)
    found = np.empty(rows.shape)
    for row, magnitudes in zip(found, rows, strict=True):
        rank = np.argsort(np.argsort(magnitudes, kind="stable"))
        row[:] = density - e + 2 * e * rank / (len(row) - 1) if len(row) > 1 else density
    return (np.rint(found * 65_536) / 65_536).reshape(tau.shape)


class TestDellaLinear(OperatorContract):
    name = "della_linear"
    options: Options = (("seed", SEED),)
    rescale = "exact"
    tolerance = 2e-5

    def equal_values(self) -> tuple[float, ...]:
        return (0.5, 0.5, 1.0, 1.0, 0.3, 0.3, 1.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        names = ("weight", "density", "spread")
        found = {}
        for name, (base, *experts) in theta.items():
            says = []
            each = zip(*map(values.each, names), MEMBERS[1:], experts, strict=True)
            for weight, density, spread, member, expert in each:
                tau = expert - base
                probability = probabilities(tau, density, spread)
                bits = uniform_bits(bit_stream(SEED, f"pool:{member}:{name}"), 0, tau.size).reshape(tau.shape)
                survives = bits < probability * 65_536
                scale = {"exact": 1 / np.maximum(probability, 1e-9), "l1": self.l1(tau, survives), "none": 1.0}
                says.append(weight * scale[self.rescale] * tau * survives)
            found[name] = base + values.one("lambda") * self.together(np.stack(says), values.each("weight"))
        return found

    def l1(self, tau: Any, survives: Any) -> float:
        kept = float(np.abs(tau * survives).sum())
        return float(np.abs(tau).sum()) / kept if kept else 1.0

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return says.sum(axis=0)


class TestDellaLinearL1(TestDellaLinear):
    options: Options = (("seed", SEED), ("rescale", "l1"))
    rescale = "l1"


class TestDella(TestDellaLinear):
    name = "della"

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "sum", "mean", 1.0)


class TestDellaUnscaledSum(TestDellaLinear):
    name = "della"
    options: Options = (("seed", SEED), ("rescale", "none"), ("aggregate", "sum"), ("elect", "count"))
    rescale = "none"

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "count", "sum", 1.0)


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(0, 3, width=16)))
def test_ranks_count_what_is_smaller_and_what_is_equal_before(sizes: Any) -> None:
    for row, magnitudes in zip(ranks(sizes), sizes, strict=True):
        for at, rank in enumerate(row):
            assert rank == (magnitudes < magnitudes[at]).sum() + (magnitudes[:at] == magnitudes[at]).sum()


def test_ranks_are_the_same_of_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    sizes = np.random.default_rng(0).integers(0, 5, (4, 20)).astype(np.float32)
    assert np.array_equal(ranks(torch.from_numpy(sizes)).numpy(), ranks(sizes))


def test_the_smallest_and_largest_of_a_row_survive_as_often_as_said(tmp_path: Path) -> None:
    runs, density, spread = 400, 0.4, 0.5
    vectors = TestDellaLinear().vectors(4).astype(np.float32)
    contract = TestDellaLinear()
    pool = contract.make_pool(tmp_path, vectors)
    kept = np.zeros((6, 10))
    for seed in range(runs):
        contract.options = (("seed", seed),)  # type: ignore[misc] # of this instance
        recipe = contract.recipe((1.0, 0.0, density, 1.0, spread, 0.0, 1.0))
        kept += (contract.build(pool, recipe, "table") != vectors[0])[:60].reshape(6, 10)
    order = np.argsort(np.abs(vectors[1] - vectors[0])[:60].reshape(6, 10), axis=1)
    shares = np.take_along_axis(kept, order, axis=1).mean(axis=0) / runs
    expected = density + 0.4 * spread * np.linspace(-1, 1, 10)
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / (6 * runs))


def test_rows_of_one_entry_survive_with_the_density(tmp_path: Path) -> None:
    """mergekit has no result for them."""
    contract = TestDellaLinear()
    pool = contract.make_pool(tmp_path, contract.vectors(4))
    kept = 0
    for seed in range(200):
        contract.options = (("seed", seed),)  # type: ignore[misc] # of this instance
        built = contract.build(pool, contract.recipe((1.0, 0.0, 0.4, 1.0, 1.0, 0.0, 1.0)), "table")
        kept += np.count_nonzero(built[80:85] != pool.vector("one")[80:85])
    assert abs(kept / 1000 - 0.4) < 5 * np.sqrt(0.24 / 1000)
