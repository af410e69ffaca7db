"""The space of an operator's parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import StrategyError
from evomerge.parameter import Declaration, Parameter
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.strategy import Group, Objective, Problem

TRIM = Declaration(
    "trim",
    (
        Parameter("weight", 0.0, 1.0, 0.5, "expert"),
        Parameter("rate", 1e-4, 1.0, 0.01, "segment", "log", limits=(0.0, 10.0), above=True),
        Parameter("k", 1, 4, 2, "segment", "integer", limits=(1, 9)),
    ),
    based=True,
    least=2,
)
PROBLEM = Problem(0, ("a", "b"), (Group("x", 3), Group("y", 4)), (Objective("loss"),), base="root", operators=(TRIM,))


def space(**given: object) -> OperatorSpace:
    return OperatorSpace("operator", "trim", **given)  # type: ignore[arg-type] # any keyword


def test_dimensions_go_parameter_by_parameter_group_by_group_member_by_member() -> None:
    names = [dimension.name for dimension in space().dimensions(PROBLEM)]
    assert names == ["weight.x.a", "weight.x.b", "weight.y.a", "weight.y.b", "rate.x", "rate.y", "k.x", "k.y"]


def test_values_of_a_segment_stand_as_the_operator_declares_them() -> None:
    x = [0.1, 0.2, 0.3, 0.4, np.log(0.5), np.log(0.25), 1.6, 3.4]
    recipe = space(options={"seed": 3}).decode(PROBLEM, x)
    assert recipe.sources == ("pool:root", "pool:a", "pool:b")
    assert recipe.options == (("seed", 3),)
    assert [segment.values for segment in recipe.segments] == [
        pytest.approx((0.1, 0.2, 0.5, 2.0)),
        pytest.approx((0.3, 0.4, 0.25, 3.0)),
    ]


def test_parameters_can_be_fixed_shared_and_whole() -> None:
    some = space(fixed={"rate": 0.5}, shared=("weight",), whole=("k",), search={"k": (2, 2)})
    assert [dimension.name for dimension in some.dimensions(PROBLEM)] == ["weight.x", "weight.y"]
    recipe = some.decode(PROBLEM, [0.3, 0.7])
    assert [segment.values for segment in recipe.segments] == [(0.3, 0.3, 0.5, 2.0), (0.7, 0.7, 0.5, 2.0)]


@given(st.lists(st.floats(-20, 20), min_size=8, max_size=8))
def test_whatever_the_vector_the_recipe_is_inside_the_bounds_and_leads_back(x: list[float]) -> None:
    recipe = space().decode(PROBLEM, x)
    for segment in recipe.segments:
        weights, rate, k = segment.values[:2], segment.values[2], segment.values[3]
        assert all(0 <= weight <= 1 for weight in weights)
        assert 1e-4 <= rate <= 1
        assert k in (1, 2, 3, 4)
    back = space().encode(PROBLEM, recipe)
    assert back is not None
    again = space().decode(PROBLEM, back)
    for one, two in zip(recipe.segments, again.segments, strict=True):
        assert one.values == pytest.approx(two.values, rel=1e-12)


def test_a_recipe_of_another_space_has_no_vector() -> None:
    recipe = space(shared=("weight",)).decode(PROBLEM, np.zeros(6))
    assert space(fixed={"k": 4}).encode(PROBLEM, recipe) is None
    assert WeightSpace().encode(PROBLEM, recipe) is None
    uneven = space().decode(PROBLEM, [0.1, 0.2, 0.3, 0.4, 0, 0, 1, 1])
    assert space(shared=("weight",)).encode(PROBLEM, uneven) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"search": {"wieght": (0, 1)}}, "did you mean 'weight'"),
        ({"fixed": {"rate": 0.0}}, "rate = 0.0 is impossible"),
        ({"search": {"k": (0, 3)}}, "k = 0"),
        ({"search": {"weight": (1.0, 0.0)}}, r"weight.x.a: low = 1 is not below high = 0"),
        ({"search": {"weight": (0.0, 1.0)}, "fixed": {"weight": 1.0}}, "both name 'weight'"),
    ],
)
def test_what_the_operator_does_not_have_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        space(**given).check(PROBLEM)


def test_a_pool_that_the_operator_cannot_take_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"pool\.base"):
        space().check(replace(PROBLEM, base=None))
    with pytest.raises(StrategyError, match="takes 2 to any number of models, the pool gives 1"):
        space().check(replace(PROBLEM, members=()))
    with pytest.raises(StrategyError, match="not declared"):
        OperatorSpace("operator", "other").check(PROBLEM)


@pytest.mark.parametrize("kind", ["linear", "task_arithmetic"])
@pytest.mark.parametrize("per_group", [True, False])
def test_weights_lead_back_to_their_vector(kind: str, per_group: bool) -> None:
    weights = WeightSpace(kind, per_group=per_group)  # type: ignore[arg-type] # one of its kinds
    x = np.linspace(0.1, 0.8, weights.size(PROBLEM))
    assert weights.encode(PROBLEM, weights.decode(PROBLEM, x)) == pytest.approx(x)


def test_a_mixture_of_members_is_the_same_mixture_of_their_differences() -> None:
    recipe = WeightSpace("simplex").decode(PROBLEM, [0.3, 0.7, 0.5, 0.5])
    assert WeightSpace("task_arithmetic").encode(PROBLEM, recipe) == pytest.approx([0.3, 0.7, 0.5, 0.5])
    assert WeightSpace("task_arithmetic").encode(PROBLEM, WeightSpace().decode(PROBLEM, [1, 1, 1, 1])) is None
