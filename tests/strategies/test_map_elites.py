"""MAP-Elites: who holds a cell, who mates, what is refused, and its contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.store.port import Store
from evomerge.strategy import Group, Objective, Problem, Strategy
from evomerge.testing.strategy import StrategyContract
from evomerge_strategies.map_elites import MAPElites, MAPElitesSettings, MAPElitesState

HALVES = (("0:10",), ("10:20",))
PROBLEM = Problem(3, ("a", "b", "c"), (Group("all", 100),), (Objective("accuracy"),), items=20)


def made(members: int = 3, **settings: Any) -> MAPElites:
    given_ = {"descriptors": HALVES} | settings
    names = PROBLEM.members[:members]
    return MAPElites(MAPElitesSettings(**given_), Problem(3, names, PROBLEM.groups, PROBLEM.objectives, items=20))


def row(first: int, second: int) -> np.ndarray:
    """So many right of the first ten items, and of the second ten."""
    return np.arange(10) < np.array([[first], [second]])


def told(strategy: MAPElites, state: MAPElitesState, candidate: Candidate, right: tuple[int, int]) -> MAPElitesState:
    items = row(*right).ravel()
    return strategy.tell(state, Evaluated(candidate, Score((("accuracy", float(items.mean())),), items)))


def seeded(strategy: MAPElites, *rights: tuple[int, int]) -> MAPElitesState:
    state, seeds = strategy.ask(strategy.start(), len(rights))
    for seed, right in zip(seeds, rights, strict=True):
        state = told(strategy, state, seed, right)
    return state


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_cell_is_the_floor_of_bins_times_accuracy_with_all_right_in_the_last_bin(first: int, second: int) -> None:
    assert made().cell(row(first, second).ravel()) == 10 * min(first, 9) + min(second, 9)


def test_graded_scores_have_cells_too() -> None:
    strategy = made(bins=4, descriptors=(("3", "5:7"),))
    scores = np.zeros(20)
    scores[[3, 5, 6, 10]] = 0.5, 0.5, 0.8, 9.0
    assert strategy.cell(scores) == 2


def test_a_cell_is_taken_when_empty_or_from_a_worse_one_only() -> None:
    strategy = made(bins=2)
    state = seeded(strategy, (6, 1), (1, 6), (7, 1))
    assert strategy.population(state) == (None, 1, 2, None)
    state, children = strategy.ask(state, 3)
    state = told(strategy, state, children[0], (7, 1))
    assert strategy.population(state) == (None, 1, 2, None)
    state = told(strategy, state, children[1], (8, 1))
    state = told(strategy, state, children[2], (9, 9))
    assert strategy.population(state) == (None, 1, 4, 5)
    assert strategy.diagnostics(state) == {"cells": 3.0, "grid_coverage": 0.75, "qd_score": pytest.approx(1.7)}


def test_parents_are_two_elites_in_proportion_to_quality() -> None:
    strategy = made()
    _, children = strategy.ask(seeded(strategy, (9, 5), (2, 2), (1, 1)), 600)
    assert all(one != two for one, two in (child.parents for child in children))
    share = np.mean([child.parents[0] == 0 for child in children])
    assert share == pytest.approx(14 / 20, abs=0.06)


def test_members_that_behave_alike_are_mates_all_the_same() -> None:
    strategy = made(2)
    state = seeded(strategy, (5, 5), (5, 5))
    assert sum(number is not None for number in strategy.population(state)) == 1
    _, children = strategy.ask(state, 5)
    assert {child.parents for child in children} == {(0, 1)}


def test_when_nobody_solves_anything_parents_are_anybody() -> None:
    strategy = made(2, bins=2, descriptors=(("0",),))
    state = seeded(strategy, (0, 0), (0, 0))
    _, children = strategy.ask(state, 5)
    assert {child.parents for child in children} == {(0, 1)}


def test_children_wait_for_all_seeds_and_a_search_whose_seeds_fail_says_so() -> None:
    strategy = made(2)
    state, seeds = strategy.ask(strategy.start(), 9)
    state = told(strategy, state, seeds[0], (1, 1))
    assert strategy.ask(state, 3)[1] == ()
    state = strategy.tell(state, Evaluated(seeds[1], failure="broken"))
    assert strategy.ask(state, 3)[1] == ()
    assert "only 1 of 2 starting models" in (strategy.exhausted(state) or "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"descriptors": (("0:x",),)}, "'0:x' is no place of items"),
        ({"descriptors": (("0:9:1:1",),)}, "no place of items"),
        ({"descriptors": (("::0",),)}, "no place of items"),
        ({"descriptors": (("30",),)}, "'30' is none of the 20 search items"),
        ({"descriptors": ((),)}, "names no items"),
        ({"descriptors": ()}, "1 to 100000 cells"),
        ({"bins": 400}, "1 to 100000 cells, not 160000"),
        ({"members": 1}, "at least 2 pool members"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_evaluated(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        made(**settings)


def test_a_fitness_without_item_scores_is_refused() -> None:
    with pytest.raises(StrategyError, match="score for each item"):
        MAPElites(MAPElitesSettings(HALVES), Problem(3, ("a", "b"), PROBLEM.groups, PROBLEM.objectives))


class TestMAPElites(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return MAPElites(MAPElitesSettings((("0:12",), ("12:24",))), problem)
