"""Search spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from evomerge.errors import StrategyError
from evomerge.space import WeightSpace, on_simplex
from evomerge.strategy import Group, Objective, Problem

PROBLEM = Problem(0, ("a", "b"), (Group("x", 3), Group("y", 4)), (Objective("loss"),), base="root")


def test_weights_go_group_by_group_and_member_by_member() -> None:
    recipe = WeightSpace().decode(PROBLEM, [1, 2, 3, 4])
    assert recipe.sources == ("pool:a", "pool:b")
    assert [(s.group, s.values) for s in recipe.segments] == [("x", (1.0, 2.0)), ("y", (3.0, 4.0))]


def test_one_weight_a_member_serves_all_groups() -> None:
    space = WeightSpace(per_group=False)
    assert space.size(PROBLEM) == 2
    assert {s.values for s in space.decode(PROBLEM, [1, 2]).segments} == {(1.0, 2.0)}


def test_task_arithmetic_starts_from_the_base() -> None:
    assert WeightSpace("task_arithmetic").decode(PROBLEM, [1, 2, 3, 4]).sources == ("pool:root", "pool:a", "pool:b")


@given(arrays.arrays(np.float64, st.integers(1, 8), elements=st.floats(-100, 100)))
def test_the_projection_is_on_the_simplex_and_leaves_its_points_alone(x: NDArray[np.float64]) -> None:
    point = on_simplex(x)
    assert (point >= 0).all()
    assert point.sum() == pytest.approx(1.0)
    assert on_simplex(point) == pytest.approx(point, abs=1e-12)


@given(arrays.arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_no_point_of_the_simplex_is_nearer(x: NDArray[np.float64]) -> None:
    grid = [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]
    nearest = min(float(((np.array(point) / 10 - x) ** 2).sum()) for point in grid)
    assert float(((on_simplex(x) - x) ** 2).sum()) <= nearest + 1e-12


def test_spaces_that_cannot_be_are_refused() -> None:
    with pytest.raises(StrategyError, match=r"low = 1.0 is not below"):
        WeightSpace(low=1.0, high=0.0).check(PROBLEM)
    with pytest.raises(StrategyError, match=r"pool\.base"):
        WeightSpace("task_arithmetic").check(Problem(0, ("a",), PROBLEM.groups, PROBLEM.objectives))
