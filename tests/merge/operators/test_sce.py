from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import SIZE, OperatorContract, Whole, whole


class TestSce(OperatorContract):
    name = "sce"

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, *experts) in theta.items():
            taus = np.stack(experts) - base
            spread = taus.var(axis=0)
            positive = np.sort(spread[spread > 0])
            if values.one("density") < 1:
                kept = max(1, round(values.one("density") * positive.size))
                taus = np.where(spread >= positive[positive.size - kept], taus, 0.0)
            omega = (taus**2).reshape(len(taus), -1).mean(axis=1).reshape(-1, *[1] * base.ndim)
            agree = np.sign(taus) == np.where(taus.sum(axis=0) >= 0, 1, -1)
            weight = (omega * agree).sum(axis=0)
            delta = (omega * agree * taus).sum(axis=0) / np.where(weight > 0, weight, 1)
            found[name] = base + values.one("lambda") * delta
        return found


class TestOneExpert(OperatorContract):
    name = "sce"
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        """One expert has no variance: a density below 1 selects nothing."""
        assert values.one("density") < 1
        return {name: base for name, (base, _) in theta.items()}


def build(folder: Path, vectors: Any, density: float) -> Any:
    contract = TestSce()
    return contract.build(contract.make_pool(folder, vectors), contract.recipe((density, 1.0)), "table")


@pytest.fixture
def vectors() -> Any:
    return TestSce().vectors(1).astype(np.float32)


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_weights_are_active_however_small_the_deltas(tmp_path: Path, size: float) -> None:
    """mergekit's become equal where mean squares sum to less than 1e-6."""
    tau = np.abs(np.random.default_rng(0).standard_normal((2, SIZE))) * np.array([[1.0], [5.0]]) * size
    tau = tau.astype(np.float32)
    built = build(tmp_path, np.concatenate([np.zeros((1, SIZE), np.float32), tau]), 1.0)
    for name, (one, two) in {name: (whole(tau[0])[name], whole(tau[1])[name]) for name in whole(tau[0])}.items():
        a, b = np.square(one, dtype=np.float64).mean(), np.square(two, dtype=np.float64).mean()
        np.testing.assert_allclose(whole(built)[name], (a * one + b * two) / (a + b), rtol=1e-5)


def test_equal_experts_have_no_variance_to_select(vectors: Any, tmp_path: Path) -> None:
    vectors[2] = vectors[1]
    assert np.array_equal(build(tmp_path, vectors, 0.9), vectors[0])


def test_of_the_entries_that_differ_the_share_is_selected(vectors: Any, tmp_path: Path) -> None:
    vectors[2, :40] = vectors[1, :40]  # 40 of the first tensor's 60
    kept = whole(build(tmp_path, vectors, 0.5) != vectors[0])["first.0.weight"].reshape(-1)
    assert not kept[:40].any()
    assert kept.sum() == 10


def test_all_that_equal_the_smallest_selected_are_selected(tmp_path: Path) -> None:
    vectors = np.zeros((3, SIZE), dtype=np.float32)
    vectors[1] = 1.0
    vectors[2] = 0.5
    np.testing.assert_allclose(build(tmp_path, vectors, 0.1), (1 + 0.125) / 1.25)
