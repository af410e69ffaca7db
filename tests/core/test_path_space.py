from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import StrategyError
from evomerge.space import PathSpace
from evomerge.strategy import Group, Objective, Problem


def problem(places: int, members: tuple[str, ...] = ("a", "b")) -> Problem:
    layers = tuple(Group(f"layer_{at}", 5) for at in range(places))
    return Problem(0, members, (Group("before", 3), *layers, Group("after", 2)), (Objective("loss"),))


def test_dimensions_are_an_indicator_and_a_factor_for_each_place() -> None:
    names = [one.name for one in PathSpace("path").dimensions(problem(4))]
    assert names == [f"{what}.layer_{at}" for what in ("use", "scale") for at in range(4)]
    assert PathSpace("path", scaling="none").size(problem(4)) == 4
    transitions = PathSpace("path", 2, "transition").dimensions(problem(8))
    assert len(transitions) == 8 + 16
    assert transitions[8 + 1].name == "scale.a.0.a.1"
    assert transitions[-1].name == "scale.b.1.b.1"


def test_the_start_passes_the_first_members_layers_once() -> None:
    space, given_ = PathSpace("path", 2), problem(8)
    values = [segment.values for segment in space.decode(given_, space.start(given_)).segments]
    assert values == [(1.0, 0.0)] * 3 + [(0.0, 0.0)] * 6 + [(1.0, 0.0)]


def test_places_belong_to_members_in_turn() -> None:
    space, given_ = PathSpace("path", 2, "none"), problem(8)
    values = [segment.values for segment in space.decode(given_, np.ones(8)).segments]
    assert values[1:-1] == ([(1.0, 0.0)] * 2 + [(0.0, 1.0)] * 2) * 2


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.lists(st.floats(-0.6, 0.6), min_size=8, max_size=8))
def test_factors_of_passed_places_multiply(use: list[float], logs: list[float]) -> None:
    values = [one.values for one in PathSpace("path", 2).decode(problem(8), [*use, *logs]).segments][1:-1]
    passed = 0.0
    for at in range(8):
        assert sum(scale != 0 for scale in values[at]) == (use[at] > 0)
        if use[at] > 0:
            passed += logs[at]
            assert max(values[at]) == pytest.approx(np.exp(-passed))


@pytest.mark.parametrize(
    ("space", "places", "why"),
    [
        (PathSpace("path"), 5, "2 times.*such as 0:4, 0:4; the pool has 5 layers"),
        (PathSpace("path", 2), 6, "4 times"),
        (PathSpace("path"), 0, "pool.grouping: layer.*the pool has 0 layers"),
        (PathSpace("path", low=1.5, high=2.0), 4, "must have 1 between them"),
    ],
)
def test_pools_without_such_places_are_refused(space: PathSpace, places: int, why: str) -> None:
    with pytest.raises(StrategyError, match=why):
        space.check(problem(places))


def test_groups_of_other_names_are_no_places() -> None:
    named = replace(problem(4), groups=(Group("layer_norms", 3), *problem(4).groups))
    assert PathSpace("path").size(named) == 8
