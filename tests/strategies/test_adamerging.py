from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evomerge.candidate import MEMBER, Candidate, Evaluated, Recipe, Score
from evomerge.errors import StrategyError
from evomerge.space import WeightSpace
from evomerge.store.port import Store
from evomerge.strategy import Group, Objective, Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract
from evomerge_strategies.adamerging import FAILURES, AdaMerging, AdaMergingSettings, _pull


class TestAdaMerging(StrategyContract):
    budget = 16

    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return AdaMerging(AdaMergingSettings(), problem)


class TestSoftmaxInBatches(StrategyContract):
    budget = 16

    def make(self, problem: Problem) -> Strategy[Any]:
        return AdaMerging(AdaMergingSettings("softmax", per_group=False, batch=7), problem)


class World:
    """Two groups of 5 and 3 weights, a base and two experts, and the loss ``|theta - target|^2 / 2``."""

    problem = Problem(
        seed=1,
        members=("a", "b"),
        groups=(Group("front", 5), Group("back", 3)),
        objectives=(Objective("loss", "minimize"),),
        items=30,
        base="base",
        parts=True,
        slopes=True,
    )

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.models = {MEMBER + name: random.standard_normal(8) for name in ("a", "b", "base")}
        self.target = self.weigh(np.array([[0.8, 0.1], [0.3, 0.6]])) + 0.05 * random.standard_normal(8)

    def weigh(self, coefficients: np.ndarray) -> np.ndarray:
        """``theta_0 + sum_i lambda_i tau_i`` group by group."""
        base = self.models["pool:base"]
        deltas = np.array([self.models["pool:a"] - base, self.models["pool:b"] - base])
        return base + np.concatenate([row @ deltas[:, part] for row, part in zip(coefficients, PARTS, strict=True)])

    def build(self, recipe: Recipe) -> np.ndarray:
        theta = np.zeros(8)
        for segment, part in zip(recipe.segments, PARTS, strict=True):
            sources, values = list(recipe.sources), list(segment.values)
            if recipe.operator == "task_arithmetic":
                values = [1 - sum(values), *values]
            theta[part] = sum(v * self.models[s][part] for s, v in zip(sources, values, strict=True))
        return theta

    def losses(self, theta: np.ndarray) -> tuple[float, ...]:
        """The share of each group."""
        return tuple(float(((theta - self.target)[part] ** 2).sum() / 2) for part in PARTS)

    def loss(self, theta: np.ndarray) -> float:
        return sum(self.losses(theta))

    def __call__(self, candidate: Candidate) -> Evaluated:
        theta = self.build(candidate.recipe)
        gradient = theta - self.target
        towards = [self.models[MEMBER + name] - theta for name in ("a", "b", "base")]
        slopes = np.array([[gradient[part] @ one[part] for one in towards] for part in PARTS])
        return Evaluated(candidate, Score((("loss", self.loss(theta)),), slopes=slopes))


PARTS = (slice(0, 5), slice(5, 8))


def descend(strategy: AdaMerging, world: World, steps: int) -> tuple[Any, list[Candidate]]:
    state, seen = strategy.start(), []
    for _ in range(steps):
        state, (one,) = strategy.ask(state, 5)
        assert strategy.ask(state, 5)[1] == ()
        state = strategy.tell(state, world(one))
        seen.append(one)
    return state, seen


@pytest.mark.parametrize("seed", range(3))
def test_free_coefficients_reach_the_least_squares_of_each_group(seed: int) -> None:
    world = World(seed)
    _, seen = descend(AdaMerging(AdaMergingSettings(learning_rate=0.05), world.problem), world, 600)
    base = world.models["pool:base"]
    deltas = np.array([world.models["pool:a"] - base, world.models["pool:b"] - base])
    for segment, part in zip(seen[-1].recipe.segments, PARTS, strict=True):
        best = np.linalg.lstsq(deltas[:, part].T, (world.target - base)[part], rcond=None)[0]
        np.testing.assert_allclose(segment.values, best, atol=2e-3)


@pytest.mark.parametrize("kind", ["clamped", "sigmoid", "softmax"])
@pytest.mark.parametrize("per_group", [True, False])
def test_bounded_coefficients_reach_the_best_of_a_grid(kind: Any, per_group: bool) -> None:
    world = World(4)
    chosen = AdaMergingSettings(kind, per_group, learning_rate=0.05)
    _, seen = descend(AdaMerging(chosen, world.problem), world, 500)
    line = np.linspace(0, 1, 41)
    rows = [(a, 1 - a) for a in line] if kind == "softmax" else [(a, b) for a in line for b in line]
    table = np.array([world.losses(world.weigh(np.array([row, row]))) for row in rows])  # of each group
    grid = table.min(axis=0).sum() if per_group else table.sum(axis=1).min()
    assert world.loss(world.build(seen[-1].recipe)) < grid + 5e-3
    values = np.array([segment.values for segment in seen[-1].recipe.segments])
    assert values.min() >= 0
    assert values.max() <= 1
    if kind == "softmax":
        np.testing.assert_allclose(values.sum(axis=1), 1)
    if not per_group:
        assert (values[0] == values[1]).all()


@pytest.mark.parametrize("kind", ["free", "sigmoid", "softmax"])
@pytest.mark.parametrize("per_group", [True, False])
@given(free=arrays.arrays(np.float64, (2, 2), elements=st.floats(-2, 2)), seed=st.integers(0, 50))
@settings(max_examples=25)
def test_gradients_are_those_of_the_loss(kind: Any, per_group: bool, free: np.ndarray, seed: int) -> None:
    world = World(seed)
    strategy = AdaMerging(AdaMergingSettings(kind, per_group), world.problem)
    free = free if per_group else free[:1]

    def at(numbers: np.ndarray) -> Candidate:
        recipe = strategy._space.decode(world.problem, strategy._coefficients(numbers).ravel())
        return Candidate(0, recipe)

    score = world(at(free)).score
    assert score is not None
    assert score.slopes is not None
    found = strategy._gradient(free, score.slopes)
    for place in np.ndindex(free.shape):
        step = np.zeros_like(free)
        step[place] = 1e-5
        rise = world.loss(world.build(at(free + step).recipe)) - world.loss(world.build(at(free - step).recipe))
        assert found[place] == pytest.approx(rise / 2e-5, rel=1e-4, abs=1e-6)


def test_the_penalty_draws_coefficients_together_and_is_the_derivative_of_its_mean() -> None:
    weights = np.array([[0.1, 0.9], [0.4, 0.2], [0.35, 0.6]])

    def penalty(w: np.ndarray) -> float:
        return float(np.abs(w - w.mean(axis=0)).mean())

    for place in np.ndindex(weights.shape):
        step = np.zeros_like(weights)
        step[place] = 1e-6
        assert _pull(weights)[place] == pytest.approx((penalty(weights + step) - penalty(weights - step)) / 2e-6)
    world = World(0)
    apart, near = (
        descend(AdaMerging(AdaMergingSettings(agreement=weight, learning_rate=0.05), world.problem), world, 200)[1][-1]
        for weight in (0.0, 5.0)
    )
    spread = [np.ptp([s.values for s in one.recipe.segments], axis=0).sum() for one in (apart, near)]
    assert spread[1] < spread[0] / 3


def test_zero_is_the_base_and_a_unit_coefficient_the_expert() -> None:
    world = World(0)
    strategy = AdaMerging(AdaMergingSettings(), world.problem)
    for coefficients, name in ((np.zeros((2, 2)), "base"), (np.array([[0.0, 1.0]] * 2), "b")):
        recipe = strategy._space.decode(world.problem, coefficients.ravel())
        np.testing.assert_allclose(world.build(recipe), world.models[MEMBER + name])


def test_it_begins_where_an_earlier_stage_ended() -> None:
    world = World(0)
    found = WeightSpace("task_arithmetic").decode(world.problem, [0.8, 0.1, 0.3, 0.6])
    other = Recipe("slerp", (f"{MEMBER}a", f"{MEMBER}b"), found.segments)
    strategy = AdaMerging(AdaMergingSettings(), replace(world.problem, seeds=(other, found)))
    state, (one,) = strategy.ask(strategy.start(), 1)
    assert one.recipe == found
    assert one.parents == (-2,)
    _, (two,) = strategy.ask(strategy.tell(state, world(one)), 1)
    assert two.parents == (0,)
    assert two.generation == 1


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_a_start_on_the_edge_is_taken_from_near_it(kind: Any) -> None:
    world = World(0)
    space = WeightSpace("linear" if kind == "softmax" else "task_arithmetic")
    edge = space.decode(world.problem, [1.0, 0.0, 0.0, 1.0])
    strategy = AdaMerging(AdaMergingSettings(kind), replace(world.problem, seeds=(edge,)))
    _, (one,) = strategy.ask(strategy.start(), 1)
    values = np.array([segment.values for segment in one.recipe.segments])
    np.testing.assert_allclose(values, np.eye(2), atol=2e-3)
    assert np.isfinite(values).all()


def test_batches_take_turns_and_then_all_items_have_theirs() -> None:
    world = World(0)
    _, seen = descend(AdaMerging(AdaMergingSettings(batch=12), world.problem), world, 9)
    ranges = [one.request.ranges for one in seen]
    assert ranges[:4] == [((0, 12),), ((12, 24),), ((24, 30),), None]
    assert ranges[4:8] == ranges[:4]
    assert all(one.request.slopes for one in seen)


def test_only_steps_on_all_items_are_finalists() -> None:
    world = World(0)
    strategy = AdaMerging(AdaMergingSettings(batch=12), world.problem)
    state, _ = descend(strategy, world, 9)
    assert sorted(strategy.finalists(state)) == [3, 7]


def test_a_failed_step_is_halved_and_many_end_the_search() -> None:
    world = World(0)
    strategy = AdaMerging(AdaMergingSettings(learning_rate=1.0), world.problem)
    state, _ = descend(strategy, world, 1)
    ends = [state.before.free]
    for failures in range(FAILURES):
        ends.append(state.at.free)
        assert strategy.exhausted(state) is None, failures
        state, (one,) = strategy.ask(state, 1)
        assert one.parents == (0,)
        state = strategy.tell(state, Evaluated(one, failure="made to fail"))
    assert strategy.exhausted(state) == "the last 5 candidates could not be scored"
    lengths = [np.abs(end - ends[0]).max() for end in ends[1:]]
    np.testing.assert_allclose(lengths, [lengths[0] / 2**at for at in range(FAILURES)])


def test_a_start_that_cannot_be_scored_ends_the_search() -> None:
    strategy = AdaMerging(AdaMergingSettings(), World.problem)
    state, (one,) = strategy.ask(strategy.start(), 1)
    state = strategy.tell(state, Evaluated(one, failure="made to fail"))
    assert strategy.exhausted(state)
    assert strategy.ask(state, 1) == (state, ())


def test_it_ends_after_so_many_steps() -> None:
    world = World(0)
    strategy = AdaMerging(AdaMergingSettings(steps=3), world.problem)
    state, _ = descend(strategy, world, 3)
    assert strategy.exhausted(state) == "3 steps are made"
    assert strategy.ask(state, 1)[1] == ()


@pytest.mark.parametrize(
    ("chosen", "problem", "why"),
    [
        (AdaMergingSettings(), replace(PROBLEM, slopes=False), "needs slopes of the fitness's loss"),
        (AdaMergingSettings(), replace(PROBLEM, base=None), "needs pool.base.*or use softmax"),
        (AdaMergingSettings(batch=4), replace(PROBLEM, parts=False), "batch needs a fitness that scores some"),
        (AdaMergingSettings("clamped", start=1.5), PROBLEM, "start = 1.5 is not within 0 and 1, where clamped begins"),
        (AdaMergingSettings(start=float("nan")), PROBLEM, "start = nan"),
        (AdaMergingSettings("softmax"), replace(PROBLEM, members=("a",)), "at least 2 pool members"),
    ],
)
def test_what_cannot_work_is_refused(chosen: AdaMergingSettings, problem: Problem, why: str) -> None:
    with pytest.raises(StrategyError, match=why):
        AdaMerging(chosen, problem)


def test_a_score_without_slopes_is_an_error() -> None:
    strategy = AdaMerging(AdaMergingSettings(), World.problem)
    state, (one,) = strategy.ask(strategy.start(), 1)
    with pytest.raises(StrategyError, match="told a score without"):
        strategy.tell(state, Evaluated(one, Score((("loss", 1.0),))))
