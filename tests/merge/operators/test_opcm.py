from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import SHAPES, OperatorContract, Whole, whole
from tests.merge.operators.tasks import Matrix, merged, taus

few = settings(max_examples=25, deadline=None)


def cleaned(x: Matrix, learned: Matrix, alpha: float) -> Matrix:
    """By the full decomposition, as the paper has it."""
    left, values, right = np.linalg.svd(x)
    share = np.cumsum(values) / values.sum()
    r = int((share <= alpha + 1e-12).sum())
    p = left.T @ learned @ right.T
    p[np.diag_indices(min(p.shape))] = 0.0
    p[:r, :r] = 0.0
    return np.asarray(left @ p @ right)


def norm(of: Any) -> float:
    return float(np.sqrt(sum((one**2).sum() for one in of.values())))


class TestOpcm(OperatorContract):
    name = "opcm"

    def lengths(self, x: Whole, taus: Any, gain: float) -> dict[str, float]:
        """Of the whole model."""
        scale = gain * np.mean([norm(one) for one in taus]) / norm(x)
        return dict.fromkeys(x, scale)

    def direct(self, theta: Whole, values: Values) -> Whole:
        """The paper's steps: what has been merged gets its length after each."""
        count = len(theta["second.2.one"])
        taus = [{name: tensor[at] - tensor[0] for name, tensor in theta.items()} for at in range(1, count)]
        x, last = taus[0], 1.0
        for seen in range(2, count):
            step = {
                name: cleaned(x[name], tau, values.one("alpha")) if tau.ndim == 2 else tau
                for name, tau in taus[seen - 1].items()
            }
            raw = {name: last * x[name] + step[name] for name in x}
            scales = self.lengths(raw, taus[:seen], 1.0)
            x, last = {name: scales[name] * raw[name] for name in raw}, 1.0 / scales["second.2.one"]
        return {name: tensor[0] + values.one("norm") * x[name] for name, tensor in theta.items()}


class TestOpcmTensorByTensor(TestOpcm):
    options = (("length", "tensor"),)

    def lengths(self, x: Whole, taus: Any, gain: float) -> dict[str, float]:
        return {
            name: gain * np.mean([np.linalg.norm(one[name]) for one in taus]) / np.linalg.norm(x[name]) for name in x
        }


@given(st.integers(0, 99), st.floats(0, 1), st.integers(1, 4))
@few
def test_the_merge_has_the_mean_length_of_the_task_vectors(seed: int, alpha: float, experts: int) -> None:
    of = taus(seed, experts=experts)
    expected = np.mean([np.linalg.norm(one) for one in of])
    assert np.linalg.norm(merged("opcm", of, (alpha, 1.0))) == pytest.approx(expected, rel=1e-5)
    assert np.linalg.norm(merged("opcm", of, (alpha, 0.7))) == pytest.approx(0.7 * expected, rel=1e-5)


@given(st.integers(0, 99), st.floats(0, 1))
@few
def test_what_is_added_stands_at_a_right_angle_to_what_was_there(seed: int, alpha: float) -> None:
    one, two = taus(seed, experts=2)
    found = merged("opcm", [one, two], (alpha, 1.0))
    added = found / np.vdot(found, one) * np.vdot(one, one) - one  # in the scale in which the first is whole
    assert abs(np.vdot(added, one)) < 1e-4
    np.testing.assert_allclose(added, cleaned(one, two, alpha), rtol=1e-3, atol=1e-3)


def test_an_expert_that_is_there_already_adds_nothing() -> None:
    one = taus(1, experts=1)[0]
    for alpha in (0.0, 0.5, 1.0):
        np.testing.assert_allclose(merged("opcm", [one, one, one], (alpha, 1.0)), one, atol=1e-5)


def test_alpha_from_none_to_all_takes_ever_more_away() -> None:
    one, two = taus(2, experts=2)
    left = [np.linalg.norm(cleaned(one, two, alpha)) for alpha in (0.0, 0.8, 1.0)]
    assert left == sorted(left, reverse=True)
    assert left[2] < left[1] < left[0]
    u, _, vt = np.linalg.svd(one, full_matrices=False)
    everything = two - u @ (u.T @ two @ vt.T) @ vt
    found = merged("opcm", [one, two], (1.0, 1.0))
    scale = np.vdot(found, one) / np.vdot(one, one)
    np.testing.assert_allclose(found / scale - one, everything, atol=1e-4)


def test_the_order_of_the_experts_matters() -> None:
    of = taus(3)
    there, back = merged("opcm", of, (0.5, 1.0)), merged("opcm", of[::-1], (0.5, 1.0))
    assert np.abs(there - back).max() > 0.1


def test_other_tensors_count_for_the_length_of_the_whole(tmp_path: Path) -> None:
    contract = TestOpcm()
    vectors = contract.vectors(1)
    built = contract.build(contract.make_pool(tmp_path, vectors), contract.recipe((0.5, 1.0)))
    moved = whole(built - vectors[0])
    assert set(moved) == set(SHAPES)
    expected = np.mean([np.linalg.norm(one - vectors[0]) for one in vectors[1:]])
    assert norm(moved) == pytest.approx(expected, rel=1e-5)
