from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.operators.model_stock import ModelStock
from evomerge.merge.operators.port import Values
from evomerge.testing.operator import Coefficients, OperatorContract, Whole


def stock(base: Any, experts: Any, gain: float) -> Any:
    """One vector of each model."""
    taus = [expert - base for expert in experts]
    cosines = [np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in combinations(taus, 2)]
    c, count = max(0.0, float(np.mean(cosines))), len(taus)
    share = gain * count * c / (1 + (count - 1) * c)
    return (1 - share) * base + share * np.mean(experts, axis=0)


class TestModelStock(OperatorContract):
    name = "model_stock"

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: stock(tensor[0], tensor[1:], values.one("gain")) for name, tensor in theta.items()}


class TestModelStockRows(OperatorContract):
    name = "model_stock_rows"

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, tensor in theta.items():
            flat = tensor.reshape(len(tensor), -1, tensor.shape[-1])
            rows = [stock(flat[0, at], flat[1:, at], values.one("gain")) for at in range(flat.shape[1])]
            found[name] = np.stack(rows).reshape(tensor.shape[1:])
        return found


def coefficients(taus: Any, gain: float = 1.0) -> tuple[float, ...]:
    theta = np.concatenate([np.zeros((1, taus.shape[1])), taus]) + 1.0
    return Coefficients(ModelStock(), len(theta), gram=theta @ theta.T)(gain)


@given(st.integers(2, 5), st.floats(0.5, 1.5))
def test_equal_experts_give_the_expert_and_right_angles_the_base(count: int, gain: float) -> None:
    equal = coefficients(np.tile([1.0, 2.0, -1.0], (count, 1)), gain)
    np.testing.assert_allclose(equal, [1 - gain, *[gain / count] * count], atol=1e-9)
    np.testing.assert_allclose(coefficients(np.eye(count), gain), [1.0, *[0.0] * count], atol=1e-9)


@pytest.mark.parametrize("cosine", [-0.2, -0.4, -0.5])
def test_obtuse_experts_give_the_base_even_at_the_pole(cosine: float) -> None:
    taus = np.linalg.cholesky((1 - cosine) * np.eye(3) + cosine + 1e-12 * np.eye(3))
    np.testing.assert_allclose(coefficients(taus), [1.0, 0.0, 0.0, 0.0], atol=1e-9)


@given(st.floats(1e-3, 1e3))
def test_the_size_of_the_task_vectors_does_not_matter(scale: float) -> None:
    taus = np.array([[1.0, 0.5, 0.0], [0.7, -0.2, 0.4]])
    np.testing.assert_allclose(coefficients(scale * taus), coefficients(taus), rtol=1e-6)
