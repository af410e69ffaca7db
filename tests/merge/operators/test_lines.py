import math
from typing import Any

import numpy as np
import pytest

from evomerge.errors import RecipeError
from evomerge.merge.operators.lines import NuSlerpAxis
from evomerge.merge.operators.port import Values, operator
from evomerge.testing.operator import OperatorContract, Whole


def line(one: Any, two: Any, t: float) -> Any:
    scale = math.sqrt(float(one @ one) * float(two @ two))
    omega = math.acos(min(1.0, max(-1.0, float(one @ two) / scale)))
    if math.sin(omega) < 1e-8:
        return (1 - t) * one + t * two
    return (math.sin((1 - t) * omega) * one + math.sin(t * omega) * two) / math.sin(omega)


def rows(one: Any, two: Any, t: float) -> Any:
    """Each vector along the last axis by itself."""
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in (one, two)]
    return np.stack([line(*pair, t) for pair in zip(*flat, strict=True)]).reshape(one.shape)


def columns(one: Any, two: Any, t: float) -> Any:
    return rows(one.T, two.T, t).T


class TestRows(OperatorContract):
    name = "nuslerp_axis"
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: rows(*tensor, values.one("t")) for name, tensor in theta.items()}


class TestColumns(OperatorContract):
    name = "nuslerp_axis"
    options = (("axis", "first"),)
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: columns(*tensor, values.one("t")) for name, tensor in theta.items()}


class TestRowsOfTaskVectors(OperatorContract):
    name = "task_nuslerp_axis"

    def direct(self, theta: Whole, values: Values) -> Whole:
        t = values.one("t")
        return {name: base + rows(one - base, two - base, t) for name, (base, one, two) in theta.items()}


class TestColumnsOfTaskVectors(OperatorContract):
    name = "task_nuslerp_axis"
    options = (("axis", "first"),)

    def direct(self, theta: Whole, values: Values) -> Whole:
        t = values.one("t")
        return {name: base + columns(one - base, two - base, t) for name, (base, one, two) in theta.items()}


def test_a_line_of_zeros_counts_as_being_at_a_right_angle() -> None:
    products = np.array([[[0.0], [0.0]], [[0.0], [4.0]]])
    merge = NuSlerpAxis()
    found = merge.combine(merge.values((0.3,), 2), products)
    np.testing.assert_allclose(found[:, 0], [math.sin(0.7 * math.pi / 2), math.sin(0.3 * math.pi / 2)])


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_between_parallel_lines_it_is_straight(cosine: float) -> None:
    merge = NuSlerpAxis()
    found = merge.combine(merge.values((0.3,), 2), np.array([[[1.0], [cosine]], [[cosine], [1.0]]]))
    np.testing.assert_allclose(found[:, 0], [0.7, 0.3])


def test_an_unknown_axis_is_named() -> None:
    with pytest.raises(RecipeError, match="'second'"):
        operator("nuslerp_axis", (("axis", "second"),))


@pytest.mark.parametrize("one", [0.1, 0.3, 1.7])
def test_opposite_numbers_are_not_blown_up(one: float) -> None:
    pair = np.array([one, -one / 3.0])
    merge = NuSlerpAxis()
    found = merge.combine(merge.values((0.3,), 2), (pair[:, None] * pair)[:, :, None])
    np.testing.assert_allclose(found[:, 0], [0.7, 0.3])
