from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import OperatorContract, Whole
from tests.merge.operators.tasks import Matrix, merged, taus

few = settings(max_examples=25, deadline=None)


def orthogonalised(columns: Matrix) -> Matrix:
    """By the singular value decomposition, which is unique for independent columns."""
    left, values, right = np.linalg.svd(columns, full_matrices=False)
    kept = values > 1e-6 * values[0]
    return np.asarray(left[:, kept] @ right[kept])


def tsv(of: Any, alpha: float, shares: Any, gains: Any) -> Matrix:
    fair = max(1, min(of[0].shape) // len(of))
    lefts, rights, middles = [], [], []
    for one, share, gain in zip(of, shares, gains, strict=True):
        k = max(1, int(share * fair))
        left, values, right = np.linalg.svd(one, full_matrices=False)
        lefts.append(left[:, :k])
        rights.append(right[:k].T)
        middles.append(gain * values[:k])
    left, right = orthogonalised(np.hstack(lefts)), orthogonalised(np.hstack(rights))
    return np.asarray(alpha * (left * np.concatenate(middles)) @ right.T)


class TestTsvMerge(OperatorContract):
    name = "tsv_m"

    def equal_values(self) -> tuple[float, ...]:
        return (1.0,) * 5

    def weights(self, values: Values) -> NDArray[np.float64]:
        return np.full(len(values.each("gain")), 1.0 / len(values.each("gain")))

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, tensor in theta.items():
            taus = tensor[1:] - tensor[0]
            if tensor.ndim == 3:
                merge = tsv(taus, values.one("alpha"), values.each("share"), values.each("gain"))
            else:
                merge = values.one("alpha") * np.tensordot(self.weights(values), taus, 1)
            found[name] = tensor[0] + merge
        return found


class TestTsvMergeWithTheGainsOnOtherTensors(TestTsvMerge):
    options = (("others", "linear"),)

    def weights(self, values: Values) -> NDArray[np.float64]:
        return np.array(values.each("gain"))


@given(st.integers(0, 99))
@few
def test_one_expert_stays_itself(seed: int) -> None:
    of = taus(seed, experts=1)
    np.testing.assert_allclose(merged("tsv_m", of, (1.0, 1.0, 1.0)), of[0], atol=1e-5)


@given(st.integers(0, 99))
@few
def test_the_merge_has_the_singular_values_that_were_kept(seed: int) -> None:
    of = taus(seed, (9, 12))
    kept = [np.linalg.svd(one, compute_uv=False)[:3] for one in of]
    found = np.linalg.svd(merged("tsv_m", of, (1.0,) * 7), compute_uv=False)
    np.testing.assert_allclose(found, np.sort(np.concatenate(kept))[::-1], rtol=1e-5)


@pytest.mark.parametrize("experts", [2, 3])
def test_equal_experts_give_the_truncation_of_one(experts: int) -> None:
    one = taus(1, (9, 12), 1)[0]
    left, values, right = np.linalg.svd(one, full_matrices=False)
    k = 9 // experts
    found = merged("tsv_m", [one] * experts, (1.0,) * (1 + 2 * experts))
    np.testing.assert_allclose(found, (left[:, :k] * values[:k]) @ right[:k], atol=1e-5)


def test_the_share_says_how_many_triplets_an_expert_keeps() -> None:
    of = taus(2, (9, 12))
    found = merged("tsv_m", of, (1.0, 1.0, 0.7, 0.1, 1.0, 1.0, 1.0))
    assert np.linalg.matrix_rank(found, tol=1e-4) == 3 + 2 + 1


def test_an_expert_that_learned_nothing_takes_no_room() -> None:
    of = taus(3, (9, 12), 2)
    found = merged("tsv_m", [*of, np.zeros((9, 12))], (1.0,) * 7)
    np.testing.assert_allclose(found, tsv(of, 1.0, (0.75, 0.75), (1.0, 1.0)), atol=1e-5)
