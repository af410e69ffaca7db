from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.pareto import dominance
from evomerge_strategies.sampling import most_uncertain
from evomerge_strategies.surrogate import Link, fit, unknowns
from evomerge_strategies.surrogate_front import predicted_front, spread

Floats = NDArray[np.float64]
LINKS = {
    "identity": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
}


def metric(seed: int, size: int, link: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Generic samples of a quadratic under a link, and other points of it."""
    random = np.random.default_rng(seed)
    e, b, a = random.normal(), random.normal(size=size), random.normal(size=(size, size))
    points = random.random((2 * unknowns(size) + 20, size))
    values = LINKS[link](e + points @ b + 0.5 * ((points @ (a + a.T)) * points).sum(axis=1))
    cut = 2 * unknowns(size)
    return points[:cut], values[:cut], points[cut:], values[cut:]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from(["identity", "sigmoid", "softplus"]))
def test_a_quadratic_metric_is_recovered_to_rounding(seed: int, size: int, link: Link) -> None:
    points, values, others, expected = metric(seed, size, link)
    for surrogate in (fit(points, values, link), fit(points, values)):
        assert surrogate(others) == pytest.approx(expected, abs=1e-6)
        assert surrogate.r2 == pytest.approx(1.0)
        assert surrogate.error < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_permuting_coefficients_permutes_the_surrogate(seed: int) -> None:
    points, values, others, _ = metric(seed, 3, "sigmoid")
    values = values + 0.05 * np.random.default_rng(seed).normal(size=len(values))
    order = np.random.default_rng(seed).permutation(3)
    there, here = fit(points[:, order], values), fit(points, values)
    assert there(others[:, order]) == pytest.approx(here(others), abs=1e-5)


def test_left_out_errors_are_those_of_fits_without_the_sample() -> None:
    random = np.random.default_rng(0)
    points, values = random.random((25, 2)), random.normal(size=25)
    left_out = fit(points, values, "identity").left_out
    for at in range(25):
        rest = np.delete(np.arange(25), at)
        predicted = fit(points[rest], values[rest], "identity")(points[[at]])[0]
        assert left_out[at] == pytest.approx(values[at] - predicted)


@given(st.integers(0, 1000))
def test_the_link_is_what_predicts_best_within_the_values_range(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.random((40, 2))
    assert fit(points, 9.0 * points[:, 0] - 2.0).link == "identity"
    steep = LINKS["sigmoid"](12.0 * points[:, 0] - 6.0)
    assert fit(points, steep).link == "sigmoid"
    assert fit(points, LINKS["softplus"](12.0 * points[:, 0] - 6.0)).link == "softplus"


def test_values_at_the_ends_of_a_range_are_fitted_as_well() -> None:
    points = np.random.default_rng(0).random((40, 2))
    steps = (points[:, 0] > 0.5).astype(np.float64)
    surrogate = fit(points, steps)
    assert np.isfinite(surrogate(points)).all()
    assert surrogate.r2 > 0.6
    assert fit(points, np.zeros(40))(points) == pytest.approx(0.0, abs=1e-2)


def test_predictions_stay_in_the_links_range() -> None:
    random = np.random.default_rng(0)
    points = random.random((30, 2))
    far = 50.0 * random.normal(size=(200, 2))
    found = fit(points, random.random(30), "sigmoid")(far)
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert (fit(points, random.random(30), "softplus")(far) >= 0.0).all()


# --- the front of surrogates ------------------------------------------------------------------------------------------


def two_valleys(unit: Floats) -> Floats:
    """The front runs straight from (0.2, 0.2, 0.2) to (0.8, 0.8, 0.8)."""
    return -np.stack([((unit - 0.2) ** 2).sum(axis=1), ((unit - 0.8) ** 2).sum(axis=1)], axis=1)


def test_the_predicted_front_is_that_of_the_surrogates_and_inside_the_cube() -> None:
    random = np.random.default_rng(0)
    found = predicted_front(two_valleys, random.random((5, 3)), 40, 60, random)
    assert not dominance(two_valleys(found)).any()
    assert np.ptp(found, axis=1).max() < 0.15
    assert found.min() < 0.3
    assert found.max() > 0.7
    outward = predicted_front(lambda unit: unit[:, :2] * [1.0, -1.0], random.random((5, 3)), 20, 20, random)
    assert ((outward >= 0.0) & (outward <= 1.0)).all()


@given(st.integers(0, 1000), st.integers(1, 12))
def test_what_is_verified_is_new_spread_and_not_beaten_where_possible(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    angle = random.random(10) * np.pi / 2
    predicted = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    measured = random.random((6, 2))
    chosen = spread(predicted, measured, count)
    beaten = [(row <= measured).all(axis=1).any() for row in predicted]
    open_ones = 10 - sum(beaten)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, open_ones or 10)
    assert not open_ones or not any(beaten[at] for at in chosen)


def test_the_farthest_from_the_measured_front_comes_first() -> None:
    predicted = np.array([[0.0, 10.0], [5.0, 5.0], [10.0, 0.0]])
    assert list(spread(predicted, np.array([[0.0, 9.9]]), 2)) == [2, 1]


# --- adaptive samples -------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 9))
def test_adaptive_samples_lie_in_the_cube(seed: int, size: int, count: int) -> None:
    random = np.random.default_rng(seed)
    points = random.random((12, size))
    found = most_uncertain(points, random.random(12), count, random)
    assert found.shape == (count, size)
    assert ((found >= 0.0) & (found <= 1.0)).all()


def test_adaptive_samples_go_where_the_fit_is_bad() -> None:
    random = np.random.default_rng(0)
    points = random.random((400, 2))
    squared = (points[:, 0] > 3.0 * points[:, 1]).astype(np.float64)
    found = most_uncertain(points, squared, 200, random)
    assert (found[:, 0] > found[:, 1]).mean() > 0.9
    even = most_uncertain(points, np.zeros(400), 200, random)
    assert 0.35 < (even[:, 0] > even[:, 1]).mean() < 0.65
