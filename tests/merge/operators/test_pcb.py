from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.kernels.pcb import count, count_within, find_scores, score_of
from evomerge.merge.operators import competition
from evomerge.merge.operators.port import Values, operator
from evomerge.merge.pool import ModelPool
from evomerge.testing.operator import SIZE, OperatorContract, Whole, whole

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


def nth(values: Doubles, share: float) -> float:
    """The smallest of so large a share of the values, at least one."""
    return float(np.sort(values)[len(values) - max(1, round(share * len(values)))])


def clipped(taus: Doubles, q: float) -> tuple[Doubles, Doubles]:
    """Magnitudes clipped to their quantiles, and scaled to [0, 1]; both with their signs."""
    rows = []
    for tau in taus:
        low = 0.0 if round((1 - q) * len(tau)) == len(tau) else nth(abs(tau), 1 - q)
        high = nth(abs(tau), q)
        size = np.clip(abs(tau), low, high)
        share = (size - low) / (high - low) if high > low else np.zeros_like(size)
        rows.append(np.sign(tau) * np.stack([size, share]))
    tau_c, z = np.stack(rows, axis=1)
    return tau_c, z


def surviving(taus: Doubles, variant: str, r: float, q: float) -> tuple[Doubles, Doubles]:
    """Clipped task vectors, and S, of all experts (N, d)."""
    tau_c, z = clipped(taus, q)
    inter = {
        "C": np.tanh(z[:, None] * z[None]).sum(axis=1),
        "B": np.tanh(taus * z.sum(axis=0)),
        "A": np.tanh(taus * taus.sum(axis=0)),
    }[variant]
    scores = np.exp(len(taus) * z**2) * inter
    kept = []
    for score in scores:
        least = nth(score, r)
        spread = score.max() - least
        above = np.maximum(score, least) - least
        kept.append(above / spread if spread > 0 else (score >= least) * float(least > 0))
    return tau_c, np.stack(kept)


def merged(flat: Doubles, lambdas: Sequence[float], variant: str, r: float, q: float) -> Doubles:
    tau_c, s = surviving(flat[1:] - flat[0], variant, r, q)
    found: Doubles = flat[0] + (np.array(lambdas)[:, None] * tau_c * s).sum(axis=0) / np.maximum(s.sum(axis=0), 1e-12)
    return found


class TestPCB(OperatorContract):
    name = "pcb"
    variant = "C"
    tolerance = 3e-5

    def equal_values(self) -> tuple[float, ...]:
        return (*[1.0] * (self.sources - 1), 0.1, 0.01)

    def direct(self, theta: Whole, values: Values) -> Whole:
        flat = np.concatenate([tensor.reshape(len(tensor), -1) for tensor in theta.values()], axis=1)
        return whole(merged(flat, values.each("lambda"), self.variant, values.one("r"), values.one("q")))


class TestPCBOfOneExpert(TestPCB):
    sources = 2


class TestPCBVariantB(TestPCB):
    options = (("variant", "B"),)
    variant = "B"
    homogeneous = False  # tau itself is in the hyperbolic tangent


class TestPCBVariantA(TestPCB):
    options = (("variant", "A"),)
    variant = "A"
    homogeneous = False


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return TestPCB().make_pool(tmp_path, TestPCB().vectors(1))


def task_vectors(pool: ModelPool) -> Doubles:
    theta = np.stack([pool.vector(member) for member in pool.sources]).astype(np.float64)
    return theta[1:] - theta[0]


def change(pool: ModelPool, *values: float) -> Doubles:
    contract = TestPCB() if len(values) == 4 else TestPCBOfOneExpert()
    found: Doubles = contract.build(pool, contract.recipe(values)).astype(np.float64) - pool.vector("one")
    return found


def test_it_is_linear_in_lambda(pool: ModelPool) -> None:
    one, two = change(pool, 1.0, 0.0, 0.3, 0.01), change(pool, 0.0, 1.0, 0.3, 0.01)
    np.testing.assert_allclose(change(pool, 0.7, -2.0, 0.3, 0.01), 0.7 * one - 2.0 * two, atol=2e-6)


@pytest.mark.parametrize("r", [0.05, 0.2, 0.5])
def test_the_share_r_of_each_expert_counts(pool: ModelPool, r: float) -> None:
    for values in ((1.0, 0.0, r, 0.01), (0.0, 1.0, r, 0.01)):
        counted = np.count_nonzero(change(pool, *values))
        assert counted in (round(r * SIZE), round(r * SIZE) - 1)  # the least of them scores 0


def test_no_entry_changes_more_than_in_the_expert_that_changes_it_most(pool: ModelPool) -> None:
    taus = task_vectors(pool)
    largest = np.max([0.9 * abs(taus[0]), 1.3 * abs(taus[1])], axis=0)
    assert (abs(change(pool, 0.9, 1.3, 0.3, 0.01)) <= largest + 1e-6).all()


def test_a_single_expert_keeps_its_largest_entries_as_they_are(pool: ModelPool) -> None:
    tau = task_vectors(pool)[0]
    found = change(pool, 1.0, 0.2, 0.0)
    kept = abs(tau) > nth(abs(tau), 0.2)
    np.testing.assert_allclose(found, np.where(kept, tau, 0.0), atol=1e-6)


def test_the_scale_of_one_expert_does_not_change_what_counts(tmp_path: Path) -> None:
    vectors = TestPCB().vectors(1)
    scaled = vectors.copy()
    scaled[2] = vectors[0] + 8.0 * (vectors[2] - vectors[0])
    one, two = (
        change(TestPCB().make_pool(tmp_path / name, each), 1.0, 0.0, 0.2, 0.01)
        for name, each in (("one", vectors), ("two", scaled))
    )
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_an_expert_equal_to_the_base_does_not_weaken_the_others(tmp_path: Path) -> None:
    vectors = TestPCB().vectors(1)
    vectors[2] = vectors[0]
    pool = TestPCB().make_pool(tmp_path, vectors)
    tau = task_vectors(pool)[0]
    found = change(pool, 1.0, 1.0, 0.2, 0.01)
    np.testing.assert_allclose(found[found != 0.0], tau[found != 0.0], rtol=1e-3)
    assert np.count_nonzero(found) == round(0.2 * SIZE) - 1


def test_entries_that_all_score_alike_all_count(tmp_path: Path) -> None:
    vectors = TestPCB().vectors(1)
    vectors[:2] = 0.0
    vectors[1, :30] = 0.5
    found = change(TestPCB().make_pool(tmp_path, vectors), 1.0, 0.1, 0.01)
    np.testing.assert_allclose(found[:30], 0.5, rtol=1e-6)
    assert not found[30:].any()


def test_blocks_and_pages_change_no_byte(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.merge import sparse
    from evomerge.merge.operators import pcb

    contract = TestPCB()
    at_once = contract.build(pool, contract.recipe(contract.values()), "table")
    for module, name in ((competition, "BLOCK"), (pcb, "PAGE"), (sparse, "PAGE")):
        monkeypatch.setattr(module, name, 8)
    monkeypatch.setattr(pcb, "_BLOCK", 16)
    assert contract.build(pool, contract.recipe(contract.values()), "table").tobytes() == at_once.tobytes()


def test_what_is_kept_serves_every_lambda(pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = TestPCB()
    recipes = [contract.recipe((a, b, 0.2, 0.01)) for a, b in ((1.0, 1.2), (0.8, 0.9))]
    expected = [contract.build(pool, recipe, "table") for recipe in recipes]
    assert contract.build(pool, recipes[0], "table", tmp_path / "cache").tobytes() == expected[0].tobytes()
    monkeypatch.setattr(competition.Scale, "scores", lambda *_: pytest.fail("computed again"))
    assert contract.build(pool, recipes[1], "table", tmp_path / "cache").tobytes() == expected[1].tobytes()


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(RecipeError, match="'D'"):
        operator("pcb", (("variant", "D"),))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_float64(experts: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    theta = draw.standard_normal((experts + 1, 3000)).astype(np.float32)
    theta[1:] = theta[0] + np.float32(0.01) * theta[1:]
    lows, highs = (np.quantile(abs(theta[1:] - theta[0]), q, axis=1).astype(np.float32) for q in (0.01, 0.95))
    scores = np.empty((experts, 3000), dtype=np.float32)
    find_scores(theta, lows, highs, 1 / (highs - lows), 0, scores)
    taus = (theta[1:] - theta[0]).astype(np.float64)
    share = (np.clip(abs(taus), lows[:, None], highs[:, None]) - lows[:, None]) / (highs - lows)[:, None].astype(float)
    z = np.sign(taus) * share
    expected = np.exp(experts * (z**2 - 1)) * np.tanh(z[:, None] * z[None]).sum(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


numbers = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 50), elements=numbers))
def test_counting_orders_scores_of_either_sign(scores: Floats) -> None:
    counts, within = np.zeros((2, 1 << 16), dtype=np.int64)
    count(scores, counts)
    uppers = np.repeat(np.arange(1 << 16), counts)
    found = []
    for upper in np.unique(uppers):
        within[:] = 0
        count_within(scores, int(upper), within)
        found += [score_of((int(upper) << 16) | int(low)) for low in np.repeat(np.arange(1 << 16), within)]
    assert np.array_equal(np.array(found), np.sort(scores))
