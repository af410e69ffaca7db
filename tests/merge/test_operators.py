import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import PluginError, RecipeError
from evomerge.merge.operators.linear import Linear, TaskArithmetic
from evomerge.merge.operators.port import operator
from evomerge.merge.operators.slerp import Slerp
from evomerge.testing.operator import OperatorContract, Vector

unit = st.floats(0, 1)
angles = st.floats(0, math.pi)


class TestLinear(OperatorContract):
    name = "linear"
    sources = 3

    def direct(self, sources: Sequence[Vector], values: tuple[float, ...]) -> Vector:
        return sum((w * source for w, source in zip(values, sources, strict=True)), np.zeros_like(sources[0]))


class TestNormalizedLinear(TestLinear):
    options = (("normalize", True),)

    def direct(self, sources: Sequence[Vector], values: tuple[float, ...]) -> Vector:
        return super().direct(sources, values) / sum(values)


class TestTaskArithmetic(OperatorContract):
    name = "task_arithmetic"
    sources = 3

    def direct(self, sources: Sequence[Vector], values: tuple[float, ...]) -> Vector:
        base, *experts = sources
        return base + sum(w * (expert - base) for w, expert in zip(values, experts, strict=True))


class TestSlerp(OperatorContract):
    name = "slerp"

    def direct(self, sources: Sequence[Vector], values: tuple[float, ...]) -> Vector:
        (one, two), (t,) = sources, values
        omega = math.acos(one @ two / math.sqrt((one @ one) * (two @ two)))
        return (math.sin((1 - t) * omega) * one + math.sin(t * omega) * two) / math.sin(omega)


class TestSlerpByOwnName(TestSlerp):
    name = "evomerge.merge.operators.slerp:Slerp"


def test_linear_refuses_to_normalize_weights_that_cancel() -> None:
    with pytest.raises(RecipeError, match="sum to zero"):
        Linear(normalize=True).coefficients((0.5, -0.5), lambda scope: None)


def test_task_arithmetic_ends_are_exact() -> None:
    assert TaskArithmetic().coefficients((0.0, 0.0), lambda scope: None) == (1.0, 0.0, 0.0)
    assert TaskArithmetic().coefficients((1.0,), lambda scope: None) == (0.0, 1.0)


@given(angles)
def test_slerp_ends_are_exact(omega: float) -> None:
    assert Slerp().coefficients((0.0,), lambda scope: omega) == (1.0, 0.0)
    assert Slerp().coefficients((1.0,), lambda scope: omega) == (0.0, 1.0)


@given(unit, angles)
def test_slerp_swapped_sources_swap_coefficients(t: float, omega: float) -> None:
    one = Slerp().coefficients((t,), lambda scope: omega)
    other = Slerp().coefficients((1 - t,), lambda scope: omega)
    np.testing.assert_allclose(one, other[::-1], atol=1e-9)


@given(unit, st.floats(0.01, 3.1))
def test_slerp_keeps_equal_norms(t: float, omega: float) -> None:
    a, b = Slerp().coefficients((t,), lambda scope: omega)
    assert a * a + b * b + 2 * a * b * math.cos(omega) == pytest.approx(1.0, abs=1e-9)


@given(unit)
def test_slerp_is_continuous_across_its_threshold(t: float) -> None:
    below = Slerp().coefficients((t,), lambda scope: 0.999e-6)
    above = Slerp().coefficients((t,), lambda scope: 1.001e-6)
    np.testing.assert_allclose(below, above, atol=1e-9)


def test_unknown_operators_and_options_are_named() -> None:
    with pytest.raises(PluginError, match="slerp"):
        operator("slrep")
    with pytest.raises(RecipeError, match="sideways"):
        operator("slerp", (("angle", "sideways"),))
    with pytest.raises(RecipeError, match="no operator"):
        operator("evomerge.merge.pool:ModelPool")


def test_wrong_number_of_sources_is_named() -> None:
    with pytest.raises(RecipeError, match="takes 2 sources, the recipe has 3"):
        Slerp().check_sources(3)
    with pytest.raises(RecipeError, match="1 to any"):
        TaskArithmetic().check_sources(0)
