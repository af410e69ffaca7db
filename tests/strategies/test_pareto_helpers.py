from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.errors import StrategyError
from evomerge.pareto import ranks
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.pareto import (
    Front,
    chosen_objectives,
    das_dennis,
    enter_front,
    nsga2_survivors,
    nsga3_survivors,
    reference_directions,
)
from evomerge_strategies.variation import Variation

Floats = NDArray[np.float64]
GAINS = st.tuples(st.integers(1, 14), st.integers(2, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 6).map(float))
)


# --- reference directions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objectives", "divisions"), [(2, 1), (2, 7), (3, 4), (4, 3), (5, 1)])
def test_das_dennis_has_every_multiple_on_the_simplex_once(objectives: int, divisions: int) -> None:
    found = das_dennis(objectives, divisions)
    expected = {p for p in product(range(divisions + 1), repeat=objectives) if sum(p) == divisions}
    assert {tuple(row) for row in np.rint(found * divisions).astype(int).tolist()} == expected
    assert len(found) == len(expected) == comb(objectives + divisions - 1, divisions)
    assert found.sum(axis=1) == pytest.approx(1.0)


@given(st.integers(2, 8), st.integers(1, 200))
def test_directions_fill_what_room_there_is(objectives: int, most: int) -> None:
    found = reference_directions(objectives, most)
    assert len(found) <= max(most, objectives)
    assert len(np.unique(found.round(9), axis=0)) == len(found)
    assert found.sum(axis=1) == pytest.approx(1.0)
    assert (found >= 0).all()


def test_many_objectives_get_directions_inside_as_published() -> None:
    # 8 objectives: 3 divisions outside (120 directions) and 2 inside (36), Deb and Jain (2014), table I
    assert len(reference_directions(8, 156)) == 156


# --- survivors --------------------------------------------------------------------------------------------------------


def survivors(gains: Floats, count: int) -> list[NDArray[np.int64]]:
    directions = reference_directions(gains.shape[1], count)
    third = nsga3_survivors(gains, count, directions, gains.max(axis=0), np.random.default_rng(0))
    return [nsga2_survivors(gains, count), third]


@given(GAINS, st.integers(1, 16))
def test_no_survivor_is_in_a_worse_front_than_one_who_left(gains: Floats, count: int) -> None:
    rank = ranks(gains)
    for kept in survivors(gains, count):
        assert len(kept) == len(set(kept)) == min(count, len(gains))
        assert list(kept) == sorted(kept)
        left = np.setdiff1d(np.arange(len(gains)), kept)
        assert not left.size or rank[kept].max() <= rank[left].min()


@given(st.integers(0, 50))
def test_survivors_keep_the_ends_of_a_front(seed: int) -> None:
    angle = np.sort(np.random.default_rng(seed).random(40)) * np.pi / 2
    gains = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for kept in survivors(gains, 9):
        assert {0, 39} <= set(kept)


def test_directions_spread_survivors_over_objectives_of_any_scale() -> None:
    angle = np.linspace(0, np.pi / 2, 90)
    gains = np.stack([1e4 * np.cos(angle), 1e-4 * np.sin(angle)], axis=1)
    kept = survivors(gains, 10)[1]
    assert len(kept) == 10
    assert np.diff(angle[kept]).max() < 0.5


# --- the front that is kept -------------------------------------------------------------------------------------------


@given(GAINS)
def test_the_kept_front_is_the_first_front_of_all_that_was_told(gains: Floats) -> None:
    front: Front = ()
    for number, row in enumerate(gains.tolist()):
        front = enter_front(front, number, tuple(row), 100)
    rank = ranks(gains)
    assert {gained for _, gained in front} == {tuple(row) for row in gains[rank == 0].tolist()}
    assert all(gains[number].tolist() == list(gained) for number, gained in front)
    assert front[0][1][0] == gains[:, 0].max()


@given(GAINS, st.integers(1, 4))
def test_a_full_front_never_loses_the_best_on_the_main_objective(gains: Floats, size: int) -> None:
    front: Front = ()
    for number, row in enumerate(gains.tolist()):
        front = enter_front(front, number, tuple(row), size)
        assert front[0][1][0] == gains[: number + 1, 0].max()
        assert len(front) <= size


# --- variation --------------------------------------------------------------------------------------------------------


def variation(low: Floats, high: Floats, span: float, **how: float) -> Variation:
    given = {"crossover": 1.0, "crossover_eta": 15.0, "mutation": 1.0, "mutation_eta": 20.0} | how
    return Variation(low, high, np.full(len(low), span), **given)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 100), st.floats(0, 100))
def test_children_stay_inside_their_bounds(seed: int, crossover_eta: float, mutation_eta: float) -> None:
    random = np.random.default_rng(seed)
    low, high = np.full(6, -1.0), np.full(6, 2.0)
    parents = np.clip(random.uniform(-1.5, 2.5, (2, 20, 6)), low, high)  # some upon the bounds
    how = variation(low, high, 3.0, crossover_eta=crossover_eta, mutation_eta=mutation_eta)
    children = how.children(parents[0], parents[1], random)
    assert children.shape == (40, 6)
    assert ((children >= low) & (children <= high)).all()


def test_crossover_keeps_the_middle_of_two_parents_far_from_bounds() -> None:
    random = np.random.default_rng(0)
    free = np.full(5, np.inf)
    mothers, fathers = random.random((2, 200, 5))
    children = variation(-free, free, 1.0, mutation=0.0).children(mothers, fathers, random)
    assert children[::2] + children[1::2] == pytest.approx(mothers + fathers)


def test_the_spread_of_children_has_the_published_distribution() -> None:
    # P(beta <= b) = b^(eta+1)/2 for b <= 1, else 1 - b^-(eta+1)/2 (Deb and Agrawal 1995)
    random, eta = np.random.default_rng(0), 2.0
    free = np.full(1, np.inf)
    children = variation(-free, free, 1.0, mutation=0.0, crossover_eta=eta).children(
        np.zeros((40_000, 1)), np.ones((40_000, 1)), random
    )
    beta = np.abs(children[::2] - children[1::2])[:, 0]
    crossed = beta[beta != 1.0]  # the other half of the coordinates is handed on as it is
    for b in (0.5, 0.8, 1.0, 1.3, 2.0):
        expected = 0.5 * b ** (eta + 1) if b <= 1 else 1 - 0.5 * b ** -(eta + 1)
        assert (crossed <= b).mean() == pytest.approx(expected, abs=0.015)


def test_mutation_is_small_most_often_and_even_in_the_middle() -> None:
    random = np.random.default_rng(0)
    how = variation(np.zeros(1), np.ones(1), 1.0, crossover=0.0)
    half = np.full((20_000, 1), 0.5)
    steps = how.children(half, half, random)[:, 0] - 0.5
    assert abs(steps.mean()) < 0.002
    assert np.median(np.abs(steps)) < 0.05 < np.abs(steps).max()


def test_no_chance_no_change() -> None:
    random = np.random.default_rng(0)
    mothers, fathers = random.random((2, 7, 3))
    how = variation(np.zeros(3), np.ones(3), 1.0, crossover=0.0, mutation=0.0)
    children = how.children(mothers, fathers, random)
    assert np.array_equal(children[::2], mothers)
    assert np.array_equal(children[1::2], fathers)


# --- which objectives -------------------------------------------------------------------------------------------------

PROBLEM = Problem(0, ("a",), (Group("all", 1),), (Objective("odd"), Objective("even"), Objective("loss", "minimize")))


def test_objectives_may_be_chosen_by_name_and_keep_the_studys_order() -> None:
    assert [one.name for one in chosen_objectives(PROBLEM, (), "x")] == ["odd", "even", "loss"]
    assert [one.name for one in chosen_objectives(PROBLEM, ("loss", "odd"), "x")] == ["odd", "loss"]


@pytest.mark.parametrize(
    ("names", "words"),
    [(("odd", "evne"), "did you mean 'even'"), (("even", "loss"), "main objective 'odd'"), (("odd",), "only odd")],
)
def test_objectives_that_cannot_be_searched_are_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(StrategyError, match=words):
        chosen_objectives(PROBLEM, names, "NSGA-II")
