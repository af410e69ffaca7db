"""Estimates from some items: unbiased, with honest errors; and tests that keep their promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.spending.abilities import log_odds, mixture, predicted
from evomerge.spending.evidence import difference_estimate, is_worse, quantile
from evomerge.spending.rounds import boundaries

ROWS = arrays(np.float64, 40, elements=st.floats(0, 1, width=16))


@given(st.integers(1, 500), st.integers(1, 3000))
def test_rounds_double_and_end_with_all_items(first: int, items: int) -> None:
    ends = boundaries(first, items)
    assert ends[-1] == items
    assert ends[0] == min(first, items)
    assert all(after == min(2 * before, items) for before, after in pairwise(ends))


@given(ROWS, ROWS)
def test_all_items_give_the_plain_mean_whatever_was_predicted(row: np.ndarray, guess: np.ndarray) -> None:  # type: ignore[type-arg]
    assert difference_estimate(row, guess) == (pytest.approx(row.mean()), 0.0)


@given(ROWS, st.integers(2, 39))
def test_what_is_predicted_rightly_leaves_no_error(row: np.ndarray, seen: int) -> None:  # type: ignore[type-arg]
    value, error = difference_estimate(row[:seen], row)
    assert value == pytest.approx(row.mean())
    assert error == pytest.approx(0.0, abs=1e-12)


def test_the_estimate_is_unbiased_and_its_error_honest() -> None:
    """Over many orders of the items, with predictions that are far off."""
    random = np.random.default_rng(0)
    row, guess = random.random(200), random.random(200) + 3
    found = []
    for _ in range(3000):
        order = random.permutation(200)
        found.append(difference_estimate(row[order][:50], guess[order]))
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(row.mean(), abs=3 * values.std() / 54)
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(), rel=0.1)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (30, 30), (60, 60), (5, 6)])
def test_a_candidate_as_good_is_called_worse_no_more_often_than_promised(better: int, worse: int) -> None:
    """However often one looks: here after each item."""
    random = np.random.default_rng(better)
    differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * (200 - better - worse))
    wrong = sum(is_worse(random.permutation(differences)[:190], 200, 0.1) for _ in range(2000))
    assert wrong / 2000 < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 2000)


def test_a_much_worse_candidate_is_seen_early_and_what_is_decided_is_decided() -> None:
    random = np.random.default_rng(0)
    differences = np.where(random.random(1000) < 0.5, 1.0, 0.0)
    assert is_worse(differences[:20], 1000, 0.05)
    ahead = np.array([1.0] * 6 + [-1.0] * 4)
    assert not is_worse(ahead[:5], 10, 1e-9)
    assert is_worse(ahead[:6], 10, 1e-9), "four items cannot make up for six"


@pytest.mark.parametrize(("freedom", "expected"), [(7, 1.895), (15, 1.753), (30, 1.697), (1e9, 1.645)])
def test_quantiles_are_students(freedom: float, expected: float) -> None:
    assert quantile(0.95, freedom) == pytest.approx(expected, abs=2e-3)


# --- abilities ----------------------------------------------------------------------------------------------------


def pool(members: int, items: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return (np.random.default_rng(seed).random((members, items)) < 0.6).astype(np.float64)


@given(st.integers(1, 6), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=40)
def test_weights_lie_on_the_simplex_and_chances_between_0_and_1(members: int, seen: int, seed: int) -> None:
    odds = log_odds(pool(members, 60, seed))
    weights = mixture(odds, pool(1, 60, seed + 1)[0][:seen])
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1.0)
    chances = predicted(odds, weights)
    assert 0 < chances.min() <= chances.max() < 1


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_member_gets_its_own_ability_back(member: int) -> None:
    answers = pool(3, 400)
    weights = mixture(log_odds(answers), answers[member, :100])
    assert weights[member] > 0.95


def test_simulated_answers_give_their_weights_back_the_better_the_more_are_seen() -> None:
    odds, truth = log_odds(pool(3, 4000)), np.array([0.6, 0.3, 0.1])
    random, errors = np.random.default_rng(1), {}
    for seen in (50, 500, 4000):
        found = [mixture(odds, (random.random(4000) < predicted(odds, truth)).astype(float)[:seen]) for _ in range(20)]
        errors[seen] = float(np.abs(np.array(found) - truth).mean())
    assert errors[50] > errors[500] > errors[4000]
    assert errors[4000] < 0.05
