import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.operators.port import Values
from evomerge.merge.operators.slerp import Slerp
from evomerge.testing.operator import Coefficients, OperatorContract, Whole

unit = st.floats(0, 1)
angles = st.floats(0, math.pi)


def slerp(one: Any, two: Any, t: float, omega: float) -> Any:
    return (math.sin((1 - t) * omega) * one + math.sin(t * omega) * two) / math.sin(omega)


def between(one: Any, two: Any) -> float:
    return math.acos(np.vdot(one, two) / math.sqrt(np.vdot(one, one) * np.vdot(two, two)))


class TestSlerp(OperatorContract):
    name = "slerp"
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        one, two = (np.concatenate([tensor[i].ravel() for tensor in theta.values()]) for i in range(2))
        omega = between(one, two)
        return {name: slerp(*tensor, values.one("t"), omega) for name, tensor in theta.items()}


class TestSlerpByOwnName(TestSlerp):
    name = "evomerge.merge.operators.slerp:Slerp"


class TestSlerpPerTensor(OperatorContract):
    name = "slerp"
    options = (("angle", "per_tensor"),)
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        t = values.one("t")
        return {
            name: slerp(one, two, t, between(one, two)) if one.size > 1 else (1 - t) * one + t * two
            for name, (one, two) in theta.items()
        }


@given(angles)
def test_ends_are_exact(omega: float) -> None:
    child = Coefficients(Slerp(), sources=2, omega=omega)
    assert child(0.0) == (1.0, 0.0)
    assert child(1.0) == (0.0, 1.0)


@given(st.sampled_from([None, 0.0, 1e-9, 0.5, math.pi / 2, math.pi - 1e-9, math.pi]), unit)
def test_any_angle_gives_finite_coefficients(omega: float | None, t: float) -> None:
    assert all(map(math.isfinite, Coefficients(Slerp(), sources=2, omega=omega)(t)))


@given(unit, angles)
def test_swapped_sources_swap_coefficients(t: float, omega: float) -> None:
    child = Coefficients(Slerp(), sources=2, omega=omega)
    np.testing.assert_allclose(child(t), child(1 - t)[::-1], atol=1e-9)


@given(unit, st.floats(0.01, 3.1))
def test_equal_norms_are_kept(t: float, omega: float) -> None:
    a, b = Coefficients(Slerp(), sources=2, omega=omega)(t)
    assert a * a + b * b + 2 * a * b * math.cos(omega) == pytest.approx(1.0, abs=1e-9)


@given(unit)
def test_it_is_continuous_across_its_threshold(t: float) -> None:
    below = Coefficients(Slerp(), sources=2, omega=0.999e-6)(t)
    above = Coefficients(Slerp(), sources=2, omega=1.001e-6)(t)
    np.testing.assert_allclose(below, above, atol=1e-9)
