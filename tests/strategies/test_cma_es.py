"""CMA-ES: convergence, failures, restarts and its stream. Exact resume is the contract's business."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import cma
import numpy as np
import pytest

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.parameter import Declaration, Parameter
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.generations import GenerationsState
from evomerge_strategies.restarts import AtStop

FREE = WeightSpace(bounded=False)


def problem(members: int, seed: int = 1) -> Problem:
    names = tuple(f"m{i}" for i in range(members))
    return Problem(seed, names, (Group("all", 10),), (Objective("loss", "minimize"),))


def weights(candidate: Candidate) -> np.ndarray:
    return np.array(candidate.recipe.segments[0].values)


def search(
    strategy: CMAES, loss: Callable[[np.ndarray], float | None], evaluations: int
) -> tuple[GenerationsState, list[Candidate]]:
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


def sphere(x: np.ndarray) -> float:
    return float(((x - 0.3) ** 2).sum())


def evaluations_of_pycma(loss: Callable[[np.ndarray], float], seed: int) -> int:
    """What the library alone, with draws of numpy's, takes to reach 1e-8."""
    options = {"ftarget": 1e-8, "verbose": -9, "seed": seed, "bounds": None}
    return int(cma.CMAEvolutionStrategy(10 * [0.5], 0.2, options).optimize(loss).result.evaluations)


@pytest.mark.parametrize("loss", [sphere, ellipsoid])
def test_a_sphere_and_a_rotated_ellipsoid_take_no_more_evaluations_than_the_library(
    loss: Callable[[np.ndarray], float],
) -> None:
    budget = int(1.5 * np.median([evaluations_of_pycma(loss, seed) for seed in (1, 2, 3)]))
    state, _ = search(CMAES(CMAESSettings(FREE, score_members=False), problem(10)), loss, budget)
    assert state.hall[0][0] < 1e-8


@pytest.mark.parametrize("settings", [{"diagonal": True}, {"active": False}, {"diagonal": True, "active": False}])
def test_every_variant_finds_the_bottom(settings: dict[str, Any]) -> None:
    state, _ = search(CMAES(CMAESSettings(FREE, score_members=False, **settings), problem(10)), sphere, 2500)
    assert state.hall[0][0] < 1e-8


def test_variances_alone_are_learned_from_fifty_dimensions_on_unless_told_otherwise() -> None:
    def tilted(x: np.ndarray) -> float:
        return float((100 * (x[::2] - x[1::2]) ** 2 + (x[::2] + x[1::2]) ** 2).sum())

    def proposals(members: int, diagonal: bool | None) -> list[str]:
        settings = CMAESSettings(FREE, diagonal=diagonal, score_members=False)
        return [one.recipe.digest for one in search(CMAES(settings, problem(members)), tilted, 150)[1]]

    assert proposals(50, None) == proposals(50, True) != proposals(50, False)
    assert proposals(48, None) == proposals(48, False) != proposals(48, True)


def test_only_the_order_of_losses_matters() -> None:
    settings = CMAESSettings(FREE, score_members=False, at_stop="go_on")
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


def sawtooth(x: np.ndarray) -> float:
    """Rastrigin's function, its bottom at 0.3 in every dimension: many hollows, one lowest."""
    y = 10 * (x - 0.3)
    return float((y**2 - 10 * np.cos(2 * np.pi * y) + 10).sum())


@pytest.mark.parametrize("at_stop", ["ipop", "bipop"])
def test_restarts_leave_the_hollow_that_one_run_ends_in(at_stop: AtStop) -> None:
    def best(at_stop: AtStop, seed: int) -> tuple[float, float]:
        strategy = CMAES(CMAESSettings(at_stop=at_stop, score_members=False), problem(2, seed))
        state, _ = search(strategy, sawtooth, 4000)
        return state.hall[0][0], strategy.diagnostics(state)["runs"]

    for seed in (2, 3):
        alone, runs = best("go_on", seed)
        restarted, more = best(at_stop, seed)
        assert runs == 1.0 < more
        assert restarted < 1e-8 < alone


def test_a_search_may_end_where_nothing_improves_and_says_why() -> None:
    strategy = CMAES(CMAESSettings(at_stop="finish", score_members=False), problem(2))
    state = strategy.start()
    while strategy.exhausted(state) is None:
        state, asked = strategy.ask(state, 100)
        assert asked
        for candidate in asked:
            state = strategy.tell(state, Evaluated(candidate, Score((("loss", 1.0),))))
    assert "tolflatfitness" in (strategy.exhausted(state) or "")
    assert strategy.ask(state, 5) == (state, ())
    assert strategy.finalists(state)


@pytest.mark.parametrize("at_stop", ["ipop", "bipop", "again", "go_on"])
@pytest.mark.parametrize("constant", [1.0, None])
def test_a_plateau_or_failures_alone_never_end_or_break_a_search(at_stop: AtStop, constant: float | None) -> None:
    strategy = CMAES(CMAESSettings(at_stop=at_stop, score_members=False), problem(2))
    state, seen = search(strategy, lambda x: constant, 1500)
    assert (strategy.diagnostics(state)["runs"] > 1) == (at_stop != "go_on")
    assert all(np.isfinite(weights(one)).all() for one in seen)
    assert len(strategy.finalists(state)) == (10 if constant else 0)


@pytest.mark.parametrize("kind", ["linear", "simplex"])
def test_repaired_proposals_are_told_as_what_was_evaluated(kind: Literal["linear", "simplex"]) -> None:
    """The bottom lies in a corner, and no proposal outside is ever evaluated."""
    corner = np.array([1.0, 0.0, 0.0])
    settings = CMAESSettings(WeightSpace(kind), bounds="repair", score_members=False)
    state, seen = search(CMAES(settings, problem(3)), lambda x: float(((x - 1.2 * corner) ** 2).sum()), 600)
    assert state.hall[0][0] == pytest.approx(0.04, abs=1e-6)
    assert all((weights(one) >= 0).all() and (weights(one) <= 1).all() for one in seen)


def test_whole_numbers_are_found_beside_real_ones_and_by_their_own_steps() -> None:
    declared = Declaration("made", (Parameter("k", 0, 9, 4, kind="integer"), Parameter("t", 0.0, 1.0, 0.5)))
    task = replace(problem(2), operators=(declared,))
    space = OperatorSpace("operator", "made")

    def loss(x: np.ndarray) -> float:
        assert x[0] == round(x[0])
        return float(abs(x[0] - 8) + (x[1] - 0.25) ** 2)

    state, seen = search(CMAES(CMAESSettings(space, score_members=False), task), loss, 500)
    assert state.hall[0][0] < 1e-8
    assert {weights(one)[0] for one in seen[:100]} > {2.0, 4.0, 6.0, 8.0}


def test_the_first_recipe_that_the_space_knows_is_where_the_search_starts() -> None:
    task = problem(3)
    known = WeightSpace().decode(task, [0.9, 0.1, 0.4])
    other = replace(known, operator="slerp")
    tight = CMAESSettings(sigma=1e-3, score_members=False)
    _, asked = (strategy := CMAES(tight, replace(task, seeds=(other, known)))).ask(strategy.start(), 5)
    assert all(np.allclose(weights(one), [0.9, 0.1, 0.4], atol=0.02) for one in asked)
    _, told = (strategy := CMAES(replace(tight, start=0.5), replace(task, seeds=(known,)))).ask(strategy.start(), 5)
    assert all(np.allclose(weights(one), 0.5, atol=0.02) for one in told)


def test_the_pools_members_come_first_and_seeds_differ() -> None:
    _, seen = search(CMAES(CMAESSettings(), problem(3)), lambda x: float(x.sum()), 10)
    assert [c.origin for c in seen[:4]] == ["seed", "seed", "seed", "cma"]
    _, other = search(CMAES(CMAESSettings(), problem(3, seed=2)), lambda x: float(x.sum()), 10)
    assert seen[3].recipe.digest != other[3].recipe.digest


def test_a_start_may_be_given_for_each_parameter() -> None:
    declared = Declaration("made", (Parameter("k", 0.0, 9.0, 4.0), Parameter("t", 0.0, 1.0, 0.5)))
    task = replace(problem(2), operators=(declared,))
    settings = CMAESSettings(OperatorSpace("operator", "made"), {"t": 1.0, "k": 7.0}, sigma=1e-3, score_members=False)
    _, asked = (strategy := CMAES(settings, task)).ask(strategy.start(), 5)
    assert all(np.allclose(weights(one), [7.0, 1.0], atol=0.02) for one in asked)
    for start, message in (({"t": 1.0}, "lacks 'k'"), ({"t": 1.0, "k": 1.0, "x": 1.0}, "names 'x'")):
        with pytest.raises(StrategyError, match=message):
            CMAES(replace(settings, start=start), task)


def test_one_dimension_is_refused() -> None:
    with pytest.raises(StrategyError, match="at least 2 dimensions"):
        CMAES(CMAESSettings(), problem(1))
