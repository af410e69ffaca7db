from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.pareto import dominance, hypervolume
from evomerge.space import WeightSpace
from evomerge.strategy import Objective, Strategy
from evomerge_strategies.map import MAP, MAPSettings
from evomerge_strategies.nsga2 import NSGA2, NSGA2Settings
from tests.strategies.fronts import drive, problem, weights

Floats = NDArray[np.float64]
GAINS = (Objective("first"), Objective("second"))
SMALL: dict[str, Any] = {"surrogate_population": 40, "surrogate_generations": 30}


def quadratics(x: Floats) -> Floats:
    """Each expert is best a little before its corner; together they disturb one another."""
    return np.array([1.0 - ((x - peak) ** 2).sum() - 0.5 * x.prod() for peak in 0.8 * np.eye(len(x))])[:2]


def accuracies(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-4.0 * quadratics(x))))


def map_of(known: Any, **given: Any) -> MAP:
    return MAP(MAPSettings(**SMALL | given), known)


@pytest.mark.parametrize("members", [1, 2, 3, 4])
def test_as_many_samples_as_published_come_first_the_members_among_them(members: int) -> None:
    known = problem(members, GAINS)
    _, candidates, _ = drive(map_of(known), known, lambda x: np.array([x.sum(), -x[0]]), 60)
    samples = [one for one in candidates if one.generation == 0]
    assert len(samples) == (members + 1) * (members + 2)
    assert [one.origin for one in samples] == ["seed"] * members + ["sample"] * (len(samples) - members)
    drawn = np.array([weights(one, known) for one in samples[members:]])
    count = len(drawn)
    for column in drawn.T:  # a Latin hypercube
        assert sorted(np.floor(column * count)) == list(range(count))


@pytest.mark.parametrize("function", [quadratics, accuracies])
def test_surrogates_that_fit_are_verified_by_what_they_predict(function: Any) -> None:
    known = problem(3, GAINS)
    strategy = map_of(known, rounds=1)
    state, candidates, values = drive(strategy, known, function, 100)
    assert strategy.exhausted(state) == "all 1 rounds are verified"
    assert len(candidates) == 25
    found = strategy.diagnostics(state)
    for name in ("first", "second"):
        assert found[f"{name} r2"] > 0.99
        assert found[f"{name} verified error"] < 0.01 * np.ptp(values)
    verified = [one.number for one in candidates if one.origin == "front"]
    assert not dominance(values[verified]).any()
    assert set(verified) <= set(strategy.finalists(state))  # samples do not beat the front


def test_with_few_evaluations_the_front_is_better_than_a_populations() -> None:
    known = problem(3, GAINS)
    reference, volumes = np.zeros(2), {}
    makers: dict[str, Any] = {"map": map_of, "nsga2": lambda known: NSGA2(NSGA2Settings(MAPSettings().space), known)}
    for name, make in makers.items():
        volumes[name] = [
            hypervolume(drive(make(one), one, accuracies, 40)[2], reference)
            for one in (problem(3, GAINS, seed) for seed in range(5))
        ]
    assert known.objectives == GAINS
    assert min(volumes["map"]) > max(volumes["nsga2"])


def test_the_front_stays_in_the_sampled_box() -> None:
    known = problem(2, GAINS)
    space = WeightSpace("task_arithmetic", low=-0.5, high=0.7, per_group=False, bounded=False)
    _, candidates, _ = drive(map_of(known, space=space), known, lambda x: np.array([x.sum(), x[0]]), 40)
    points = np.array([weights(one, known) for one in candidates])
    assert points[2:].min() >= -0.5
    assert points[2:].max() <= 0.7


def test_losses_are_small_where_they_shall_be() -> None:
    known = problem(2, (Objective("loss", "minimize"), Objective("gain")))

    def function(x: Floats) -> Floats:
        return np.array([np.log1p(np.exp(4.0 * ((x - 0.3) ** 2).sum() - 1.0)), -((x - 0.8) ** 2).sum()])

    strategy = map_of(known)
    state, _, values = drive(strategy, known, function, 40)
    best = np.log1p(np.exp(-1.0))
    assert values[strategy.finalists(state)[0], 0] == values[:, 0].min() == pytest.approx(best, abs=0.01)


def test_rounds_go_on_until_the_budget_ends_and_never_repeat_a_recipe() -> None:
    known = problem(2, GAINS)
    _, candidates, _ = drive(map_of(known), known, accuracies, 80)
    assert len({one.recipe.digest for one in candidates}) == len(candidates) == 80
    assert max(one.generation for one in candidates) == (80 - 12 + 4) // 5


def test_adaptive_samples_are_taken_where_residuals_are_large() -> None:
    known = problem(3, GAINS)

    def kinked(x: Floats) -> Floats:
        return np.array([abs(x[0] - 0.5) * (x[0] > x[1]) * (x[0] > x[2]), x[1]])

    _, candidates, _ = drive(map_of(known, sampling="adaptive", samples=60), known, kinked, 60)
    residual = np.array([weights(one, known) for one in candidates if one.origin == "residual"])
    assert len(residual) == 60 - 13
    assert (residual.argmax(axis=1) == 0).mean() > 0.5


def test_failures_are_made_up_for_and_not_tried_again() -> None:
    known = problem(2, GAINS)
    strategy: Strategy[Any] = map_of(known)
    state, seen = strategy.start(), []
    while state.told < 60:
        state, asked = strategy.ask(state, 60 - state.told)
        for candidate in asked:
            x = weights(candidate, known)
            seen.append(candidate)
            values = zip(("first", "second"), accuracies(x).tolist(), strict=True)
            verdict: dict[str, Any] = {"failure": "no"} if x[0] > 0.4 else {"score": Score(tuple(values))}
            state = strategy.tell(state, Evaluated(candidate, **verdict))
    assert len({one.recipe.digest for one in seen}) == 60
    assert [one.origin for one in seen].count("front") > 20
    assert all(weights(seen[number], known)[0] <= 0.4 for number in strategy.finalists(state))


def test_when_everything_fails_samples_go_on() -> None:
    strategy = map_of(problem(2, GAINS))
    state = strategy.start()
    for _ in range(50):
        state, asked = strategy.ask(state, 1)
        state = strategy.tell(state, Evaluated(asked[0], failure="no"))
    assert strategy.finalists(state) == ()
    assert strategy.diagnostics(state) == {"front": 0.0, "hypervolume": 0.0}


def test_equal_scores_stop_nothing() -> None:
    known = problem(2, GAINS)
    state, candidates, _ = drive(map_of(known), known, lambda x: np.ones(2), 40)
    assert len(candidates) == 40
    assert len(state.front) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": WeightSpace("simplex")}, "a simplex is none"),
        ({"samples": 10}, "cannot determine a quadratic of 3 coefficients; take at least 11"),
        ({"objectives": ("first",)}, "only"),
        ({"objectives": ("first", "seconds")}, "did you mean 'second'"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(StrategyError, match=words):
        map_of(problem(3, GAINS), **given)
    with pytest.raises(StrategyError, match="base"):
        MAP(MAPSettings(), problem(3, GAINS, base=None))
