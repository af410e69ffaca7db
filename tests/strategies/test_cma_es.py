"""CMA-ES: convergence, failures, restarts and its stream. Exact resume is the contract's business."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.space import WeightSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.cma_es import CMAES, CMAESSettings, CMAESState

FREE = WeightSpace(bounded=False)


def problem(members: int, seed: int = 1) -> Problem:
    names = tuple(f"m{i}" for i in range(members))
    return Problem(seed, names, (Group("all", 10),), (Objective("loss", "minimize"),))


def weights(candidate: Candidate) -> np.ndarray:
    return np.array(candidate.recipe.segments[0].values)


def search(
    strategy: CMAES, loss: Callable[[np.ndarray], float | None], evaluations: int
) -> tuple[CMAESState, list[Candidate]]:
    state, seen = strategy.start(), []
    while state.told < evaluations:
        state, asked = strategy.ask(state, 4)
        for candidate in asked:
            value = loss(weights(candidate))
            told = (
                Evaluated(candidate, failure="broken")
                if value is None
                else Evaluated(candidate, Score((("loss", value),)))
            )
            state = strategy.tell(state, told)
        seen.extend(asked)
    return state, seen


def ellipsoid(x: np.ndarray) -> float:
    axes, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((x.size, x.size)))
    return float((10 ** (4 * np.arange(x.size) / (x.size - 1)) * (axes @ (x - 0.3)) ** 2).sum())


@pytest.mark.parametrize(("loss", "budget"), [(lambda x: float(((x - 0.3) ** 2).sum()), 1500), (ellipsoid, 6000)])
def test_it_finds_the_bottom_of_a_sphere_and_of_a_rotated_ellipsoid(
    loss: Callable[[np.ndarray], float], budget: int
) -> None:
    state, _ = search(CMAES(CMAESSettings(FREE, score_members=False), problem(10)), loss, budget)
    assert state.hall[0][0] < 1e-8


def test_only_the_order_of_losses_matters() -> None:
    settings = CMAESSettings(FREE, score_members=False, restart=False)
    _, plain = search(CMAES(settings, problem(4)), lambda x: float((x**2).sum()), 120)
    _, bent = search(CMAES(settings, problem(4)), lambda x: math.exp(float((x**2).sum())) - 7, 120)
    assert [c.recipe.digest for c in plain] == [c.recipe.digest for c in bent]


def test_proposals_stay_in_the_box() -> None:
    _, seen = search(CMAES(CMAESSettings(), problem(3)), lambda x: -float(x.sum()), 200)
    assert all((weights(c) >= 0).all() and (weights(c) <= 1).all() for c in seen if c.origin == "cma")


def test_simplex_proposals_sum_to_one() -> None:
    settings = CMAESSettings(WeightSpace("simplex"), score_members=False)
    _, seen = search(CMAES(settings, problem(3)), lambda x: float(x[0]), 100)
    assert all(weights(c).sum() == pytest.approx(1.0) for c in seen)


def test_failures_rank_last_and_a_whole_failed_generation_is_survived() -> None:
    def loss(x: np.ndarray) -> float | None:
        return None if x[0] > 0.5 else float(((x - 0.2) ** 2).sum())

    settings = CMAESSettings(FREE, start=0.9, score_members=False)
    state, _ = search(CMAES(settings, problem(3)), loss, 900)
    assert state.hall[0][0] < 1e-6


def test_it_begins_again_where_nothing_improves_and_may_be_told_not_to() -> None:
    for restart, runs in ((True, 2.0), (False, 1.0)):
        settings = CMAESSettings(restart=restart, score_members=False)
        strategy = CMAES(settings, problem(2))
        state, _ = search(strategy, lambda x: 1.0, 600)
        assert (strategy.diagnostics(state)["runs"] >= runs) == restart or runs == 1.0
        assert restart or strategy.diagnostics(state)["runs"] == 1.0


def test_the_pools_members_come_first_and_seeds_differ() -> None:
    _, seen = search(CMAES(CMAESSettings(), problem(3)), lambda x: float(x.sum()), 10)
    assert [c.origin for c in seen[:4]] == ["seed", "seed", "seed", "cma"]
    _, other = search(CMAES(CMAESSettings(), problem(3, seed=2)), lambda x: float(x.sum()), 10)
    assert seen[3].recipe.digest != other[3].recipe.digest


def test_one_dimension_is_refused() -> None:
    with pytest.raises(StrategyError, match="at least 2 dimensions"):
        CMAES(CMAESSettings(), problem(1))
