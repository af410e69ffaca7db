"""Derivative-free Gauss-Newton: its models, its steps, and how few evaluations it needs. Resume is the contract's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.space import WeightSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.gauss_newton import GaussNewton, GaussNewtonSettings, GaussNewtonState
from evomerge_strategies.trust_region import Model, descend, fit, missing_direction, near, residuals

ITEMS = 40
Losses = Callable[[np.ndarray], np.ndarray]


def problem(members: int) -> Problem:
    names = tuple(f"m{i}" for i in range(members))
    objectives = (Objective("loss", "minimize"),)
    return Problem(3, names, (Group("all", 10),), objectives, items=ITEMS, losses=True)


def weights_of(candidate: Candidate, members: tuple[str, ...]) -> np.ndarray:
    """The weight of every member."""
    given = dict(zip(candidate.recipe.sources, candidate.recipe.segments[0].values, strict=True))
    return np.array([given.get(f"pool:{name}", 0.0) for name in members])


def search(members: int, losses: Losses, evaluations: int, space: WeightSpace | None = None) -> GaussNewtonState:
    strategy = GaussNewton(GaussNewtonSettings(space or WeightSpace()), problem(members))
    state = strategy.start()
    while state.told < evaluations:
        state, asked = strategy.ask(state, 1)
        assert asked
        for candidate in asked:
            values = losses(weights_of(candidate, tuple(f"m{i}" for i in range(members))))
            if np.isnan(values).any():
                told = Evaluated(candidate, failure="broken")
            else:
                told = Evaluated(candidate, Score((("loss", float(values.mean())),), values, values))
            state = strategy.tell(state, told)
    return state


def least_squares(members: int, bend: float = 0.0) -> Losses:
    """Positive residuals whose half mean square is least, 8, at one point of the box; ``bend``: not linear ones."""
    random = np.random.default_rng(members)
    directions, best = random.standard_normal((ITEMS, members)), random.uniform(0.1, 0.6, members)
    directions -= directions.mean(axis=0)

    def losses(weights: np.ndarray) -> np.ndarray:
        straight = directions @ (weights - best)
        return 0.5 * (4.0 + np.asarray(np.tanh(bend * straight) / bend if bend else straight)) ** 2

    return losses


@pytest.mark.parametrize("members", [2, 5, 12])
def test_linear_residuals_are_solved_as_soon_as_there_is_a_model(members: int) -> None:
    losses = least_squares(members)
    state = search(members, losses, 3 * members + 6)
    assert state.hall[0][0] == pytest.approx(8.0, abs=1e-6)


@pytest.mark.parametrize("bend", [0.2, 0.5])
def test_bent_residuals_take_a_few_steps_more(bend: float) -> None:
    losses = least_squares(6, bend)
    bottom = minimize(lambda weights: losses(weights).mean(), np.full(6, 0.4), bounds=[(0, 1)] * 6).fun
    assert search(6, losses, 60).hall[0][0] == pytest.approx(bottom, abs=1e-4)


def test_failures_and_regions_without_scores_are_gone_round() -> None:
    losses = least_squares(3)

    def broken(weights: np.ndarray) -> np.ndarray:
        return losses(weights) if weights[0] < 0.7 else np.full(ITEMS, np.nan)

    assert search(3, broken, 120).hall[0][0] == pytest.approx(8.0, abs=1e-5)


def test_it_goes_on_where_every_candidate_fails() -> None:
    state = search(3, lambda weights: np.full(ITEMS, np.nan), 30)
    assert state.runs > 5
    assert state.hall == ()


def test_it_goes_on_where_all_are_equal() -> None:
    state = search(3, lambda weights: np.ones(ITEMS), 60)
    assert state.runs >= 2


def test_steps_stay_in_the_box() -> None:
    losses, seen = least_squares(4), []

    def away(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return losses(weights - 2.0)

    search(4, away, 60)
    assert all((weights >= 0).all() and (weights <= 1).all() for weights in seen)
    assert min(losses(weights - 2.0).mean() for weights in seen) <= losses(np.ones(4) - 2.0).mean()


def test_a_box_that_only_says_where_to_start_can_be_left() -> None:
    losses = least_squares(4)
    state = search(4, lambda weights: losses(weights - 2.0), 60, WeightSpace(bounded=False))
    assert state.hall[0][0] == pytest.approx(8.0, abs=1e-5)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(StrategyError, match="needs a loss for each item"):
        GaussNewton(GaussNewtonSettings(), replace(problem(2), losses=False))
    with pytest.raises(StrategyError, match=r"smallest = 0.3 is not below radius"):
        GaussNewton(GaussNewtonSettings(smallest=0.3), problem(2))


# --- models ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_model_of_linear_residuals_is_exact(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    jacobian, centre = random.standard_normal((ITEMS, size)), random.standard_normal(ITEMS).astype(np.float32)
    steps = random.uniform(-1, 1, (size + 3, size))
    rows = (centre + steps @ jacobian.T).astype(np.float32)
    value = float(0.5 * np.mean(centre.astype(float) ** 2))
    values = 0.5 * np.mean(rows.astype(float) ** 2, axis=1)
    model = fit(steps, rows, values, centre, value)
    if np.linalg.cond(steps) < 20:
        step = random.uniform(-1, 1, size)
        truth = 0.5 * np.mean((centre + jacobian @ step) ** 2) - value
        assert model.change(step) == pytest.approx(truth, abs=1e-3 * (1 + abs(truth)))


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_no_point_of_the_region_is_better_than_the_step(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    root = random.standard_normal((size, size))
    model = Model(random.standard_normal(size), root @ root.T + 1e-3 * np.eye(size))
    low, high = -random.uniform(0, 1, size), random.uniform(0, 1, size)
    step = descend(model, low, high)
    assert (low <= step).all()
    assert (step <= high).all()
    slope = model.gradient + model.curvature @ step
    free = np.where(slope > 0, step - low, high - step)
    assert np.abs(slope * free).max() < 0.05 * (1 + np.abs(model.gradient).max())
    assert model.change(step) <= 1e-12


def test_flat_directions_lead_to_the_wall_and_indifferent_ones_nowhere() -> None:
    model = Model(np.array([1.0, 0.0]), np.zeros((2, 2)))
    assert descend(model, -np.ones(2), np.ones(2)).tolist() == [-1.0, 0.0]


def test_residuals_carry_the_mean_loss() -> None:
    losses = np.array([0.0, 0.5, 2.0, -1e-9])
    assert 0.5 * np.mean(residuals(losses).astype(float) ** 2) == pytest.approx(losses.mean(), abs=1e-6)


def test_a_direction_without_points_is_found() -> None:
    steps = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.9, 0.3, 0.0], [0.0, 0.0, 9.0]])
    direction = missing_direction(steps)
    assert direction is not None
    assert np.abs(direction).round(9).tolist() == [0.0, 0.0, 1.0]
    assert missing_direction(np.eye(3)) is None


def test_near_points_take_part_and_far_ones_only_where_they_must() -> None:
    steps = np.array([[0.5], [2.0], [50.0], [0.1]])
    assert near(steps).tolist() == [True, True, False, True]
    assert near(np.array([[9.0], [50.0]])).tolist() == [True, True]
