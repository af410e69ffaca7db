from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.pareto import crowding, dominance, front, hypervolume, ranks

Floats = NDArray[np.float64]

# few different values, so that ties and duplicates are common
GAINS = st.tuples(st.integers(0, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 5).map(float))
)


def dominates(one: Floats, other: Floats) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


@given(GAINS)
def test_dominance_is_its_definition(gains: Floats) -> None:
    found = dominance(gains)
    for i in range(len(gains)):
        for j in range(len(gains)):
            assert found[i, j] == dominates(gains[i], gains[j])


@given(GAINS)
def test_ranks_are_those_of_peeling_front_after_front(gains: Floats) -> None:
    left, rank, expected = set(range(len(gains))), 0, np.full(len(gains), -1)
    while left:
        layer = {i for i in left if not any(dominates(gains[j], gains[i]) for j in left)}
        expected[list(layer)] = rank
        left, rank = left - layer, rank + 1
    assert np.array_equal(ranks(gains), expected)


@given(GAINS)
def test_the_front_is_rank_zero_without_repetitions(gains: Floats) -> None:
    found = front(gains)
    first = np.flatnonzero(ranks(gains) == 0)
    expected = [i for i in first if not any((gains[j] == gains[i]).all() for j in first if j < i)]
    assert list(found) == expected


@given(arrays(np.float64, st.tuples(st.integers(3, 12), st.integers(2, 4)), elements=st.floats(-9, 9), unique=True))
def test_crowding_is_the_sum_of_gaps_between_neighbours(gains: Floats) -> None:
    found = crowding(gains)
    for i, row in enumerate(gains):
        expected = 0.0
        for k, value in enumerate(row):
            column = gains[:, k]
            above, below = column[column > value], column[column < value]
            if not above.size or not below.size:
                expected = np.inf
                break
            expected += (above.min() - below.max()) / (column.max() - column.min())
        assert found[i] == pytest.approx(expected)


def test_objectives_that_never_differ_do_not_spread_anything() -> None:
    assert list(crowding(np.ones((4, 2)))) == [0.0] * 4
    one = crowding(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]))
    assert list(one) == [np.inf, 1.0, np.inf]


@given(GAINS)
def test_hypervolume_is_that_of_inclusion_and_exclusion(gains: Floats) -> None:
    gains = gains[:8]
    reference = np.ones(gains.shape[1])
    inside = np.maximum(gains - reference, 0.0)
    expected = 0.0
    for size in range(1, len(inside) + 1):
        for chosen in combinations(range(len(inside)), size):
            expected -= (-1) ** size * float(np.prod(inside[list(chosen)].min(axis=0)))
    assert hypervolume(gains, reference) == pytest.approx(expected)


@given(GAINS)
def test_hypervolume_knows_no_order_of_results_or_objectives(gains: Floats) -> None:
    rng = np.random.default_rng(len(gains))
    shuffled = gains[rng.permutation(len(gains))][:, rng.permutation(gains.shape[1])]
    reference = np.full(gains.shape[1], -1.0)
    assert hypervolume(shuffled, reference) == pytest.approx(hypervolume(gains, reference))


def test_hypervolume_of_a_fine_front_is_the_integral_below_it() -> None:
    x = np.linspace(0, 1, 2001)
    circle = np.stack([x, np.sqrt(1 - x**2)], axis=1)
    assert hypervolume(circle, np.zeros(2)) == pytest.approx(np.pi / 4, abs=1e-3)


def test_nothing_better_than_the_reference_has_no_volume() -> None:
    assert hypervolume(np.zeros((0, 3)), np.zeros(3)) == 0.0
    assert hypervolume(np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2)) == 0.0
