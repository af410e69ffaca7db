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
from evomerge_strategies.trust_region import Model, descend, fit, margins, missing_direction, near

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


def logistic(members: int, bend: float = 0.0) -> Losses:
    """Losses of items with linear margins, least at one point of the box; ``bend``: with bent ones."""
    random = np.random.default_rng(members)
    directions, best = random.standard_normal((ITEMS, members)), random.uniform(0.2, 0.6, members)
    directions -= directions.mean(axis=0)

    def losses(weights: np.ndarray) -> np.ndarray:
        straight = directions @ (weights - best)
        return np.logaddexp(0.0, straight + bend * straight**2)

    return losses


def bottom_of(losses: Losses, members: int) -> float:
    return float(minimize(lambda w: losses(w).mean(), np.full(members, 0.4), bounds=[(0, 1)] * members).fun)


@pytest.mark.parametrize(("members", "evaluations"), [(2, 14), (5, 25), (12, 50)])
def test_straight_margins_are_solved_soon_after_there_is_a_model(members: int, evaluations: int) -> None:
    losses = logistic(members)
    assert search(members, losses, evaluations).hall[0][0] == pytest.approx(bottom_of(losses, members), abs=1e-4)


@pytest.mark.parametrize("bend", [0.1, 0.3])
def test_bent_margins_take_some_steps_more(bend: float) -> None:
    losses = logistic(6, bend)
    assert search(6, losses, 60).hall[0][0] == pytest.approx(bottom_of(losses, 6), abs=1e-4)


def test_failures_and_regions_without_scores_are_gone_round() -> None:
    losses = logistic(3)

    def broken(weights: np.ndarray) -> np.ndarray:
        return losses(weights) if weights[0] < 0.7 else np.full(ITEMS, np.nan)

    assert search(3, broken, 120).hall[0][0] == pytest.approx(bottom_of(losses, 3), abs=1e-4)


def test_it_goes_on_where_every_candidate_fails() -> None:
    state = search(3, lambda weights: np.full(ITEMS, np.nan), 30)
    assert state.runs > 5
    assert state.hall == ()


def test_it_goes_on_where_all_are_equal() -> None:
    state = search(3, lambda weights: np.ones(ITEMS), 60)
    assert state.runs >= 2


def test_steps_stay_in_the_box() -> None:
    losses, seen = logistic(4), []

    def away(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return losses(weights - 2.0)

    search(4, away, 60)
    assert all((weights >= 0).all() and (weights <= 1).all() for weights in seen)
    assert min(losses(weights - 2.0).mean() for weights in seen) <= losses(np.ones(4) - 2.0).mean()


def test_a_box_that_only_says_where_to_start_can_be_left() -> None:
    losses = logistic(4)
    state = search(4, lambda weights: losses(weights - 2.0), 60, WeightSpace(bounded=False))
    assert state.hall[0][0] == pytest.approx(bottom_of(losses, 4), abs=1e-4)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(StrategyError, match="needs a loss for each item"):
        GaussNewton(GaussNewtonSettings(), replace(problem(2), losses=False))
    with pytest.raises(StrategyError, match=r"smallest = 0.3 is not below radius"):
        GaussNewton(GaussNewtonSettings(smallest=0.3), problem(2))


# --- models ------------------------------------------------------------------------------------------------------


def bent_margins(size: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Margins of items that are quadratics in a step, (m, n) -> (m, N)."""
    random = np.random.default_rng(seed)
    start, slopes = random.standard_normal(ITEMS), random.standard_normal((size, ITEMS))
    bends = 0.3 * random.standard_normal((ITEMS, size, size))
    return lambda steps: start + steps @ slopes + np.einsum("mi,jik,mk->mj", steps, bends, steps)


def model_of(true: Callable[[np.ndarray], np.ndarray], steps: np.ndarray) -> Model:
    rows, centre = true(steps), true(np.zeros((1, steps.shape[1])))
    values = np.logaddexp(0, rows).mean(axis=1) - np.logaddexp(0, centre).mean()
    return fit(steps, rows.astype(np.float32), values, centre[0].astype(np.float32))


@given(st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_model_learns_bent_margins_from_enough_points(size: int, seed: int) -> None:
    true = bent_margins(size, seed)
    random = np.random.default_rng(seed)
    model = model_of(true, random.uniform(-1, 1, (4 * (size + 1) * (size + 2), size)))
    steps = random.uniform(-0.5, 0.5, (20, size))
    truth = np.logaddexp(0, true(steps)).mean(axis=1)
    assert [model.value(step) for step in steps] == pytest.approx(truth, abs=0.02)


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_slopes_of_a_model_are_its_finite_differences(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    model = model_of(bent_margins(size, seed), random.uniform(-2, 2, (size + 3, size)))
    step = random.uniform(-1, 1, size)
    gradient, curvature = model.expanded(step)
    moves = 1e-5 * np.eye(size)
    measured = [(model.value(step + move) - model.value(step - move)) / 2e-5 for move in moves]
    assert gradient == pytest.approx(measured, abs=1e-6)
    assert (np.linalg.eigvalsh(curvature) > -1e-9).all()


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_step_is_in_the_box_and_gains_what_it_says(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    model = model_of(bent_margins(size, seed), random.uniform(-1, 1, (3 * size + 3, size)))
    low, high = -random.uniform(0, 1, size), random.uniform(0, 1, size)
    step, gain = descend(model, low, high)
    assert (low <= step).all()
    assert (step <= high).all()
    assert gain == pytest.approx(model.value(np.zeros(size)) - model.value(step), abs=1e-9)
    gradient, _ = model.expanded(np.zeros(size))
    downhill = np.where(gradient > 0, low, high) * 1e-3
    assert gain >= model.value(np.zeros(size)) - model.value(downhill) - 1e-9


def test_margins_carry_the_losses() -> None:
    losses = np.array([1e-3, 0.5, 2.0, 90.0])
    assert np.logaddexp(0, margins(losses).astype(float)) == pytest.approx(losses, rel=1e-5)
    assert np.isfinite(margins(np.array([0.0, -1e-9, 1e4]))).all()


def test_a_direction_without_points_is_found() -> None:
    steps = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.9, 0.3, 0.0], [0.0, 0.0, 9.0]])
    direction = missing_direction(steps)
    assert direction is not None
    assert np.abs(direction).round(9).tolist() == [0.0, 0.0, 1.0]
    assert missing_direction(np.eye(3)) is None


def test_the_nearest_points_take_part() -> None:
    steps = np.random.default_rng(2).uniform(-9, 9, (40, 2))
    chosen = near(steps)
    assert 6 <= chosen.sum() < 40
    distances = np.abs(steps).max(axis=1)
    assert distances[chosen].max() <= distances[~chosen].min()
    assert near(np.array([[9.0], [50.0]])).tolist() == [True, True]
