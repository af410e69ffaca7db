"""Evo-Merging: how far its first stage reaches, how its stages follow one another, its presets, and bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.parameter import Declaration
from evomerge.plugins import load
from evomerge.space import OperatorSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.evo_merging import EvoMerging
from evomerge_strategies.evo_settings import EvoMergingSettings, StageSettings
from evomerge_strategies.generations import GenerationsState

FUSION: Declaration = load("operators", "factor_fusion").declaration("factor_fusion")
Judge = Callable[[NDArray[np.float64], NDArray[np.float64]], float | None]


def problem(members: int, seed: int = 1) -> Problem:
    names = tuple(f"m{i}" for i in range(members))
    objectives = (Objective("loss", "minimize"),)
    return Problem(seed, names, (Group("all", 10),), objectives, base="base", operators=(FUSION,))


def parts(candidate: Candidate) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Alpha and beta."""
    alpha, beta = np.array(candidate.recipe.segments[0].values).reshape(2, -1)
    return alpha, beta


def search(
    settings: EvoMergingSettings, judge: Judge, task: Problem, limit: int = 10_000, members: Sequence[float] = ()
) -> tuple[EvoMerging, GenerationsState, list[tuple[Candidate, float | None]]]:
    """A whole search, in parts of 7. ``members`` are the losses of members alone."""
    strategy = EvoMerging(settings, task)
    state, seen = strategy.start(), []
    while strategy.exhausted(state) is None and state.told < limit:
        state, asked = strategy.ask(state, min(7, limit - state.told))
        for candidate in asked:
            loss = judge(*parts(candidate)) if candidate.origin != "seed" else float(members[candidate.number])
            seen.append((candidate, loss))
            told = Evaluated(candidate, failure="made to fail")
            if loss is not None:
                told = Evaluated(candidate, Score((("loss", loss),)))
            state = strategy.tell(state, told)
    return strategy, state, seen


def bowl(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> float:
    """Lowest at alpha 0.3 and beta -0.2."""
    return float(((alpha - 0.3) ** 2).mean() + ((beta + 0.2) ** 2).mean())


QUICK = EvoMergingSettings(
    denoise=StageSettings(evaluations=60), scale=StageSettings(evaluations=100), popsize=10, score_members=False
)


# --- the reach of the first stage: a fifth of the experts should be kept whole and the others dropped ------------


def reach(settings: EvoMergingSettings, members: int, seeds: int) -> tuple[float, float]:
    """Mean share kept of the experts that are wanted, and of the others, over several seeds."""
    wanted = np.arange(members) < members // 5

    def found(seed: int) -> NDArray[np.float64]:
        judge = lambda alpha, beta: float(((alpha - wanted) ** 2).mean())  # noqa: E731 - a fitness, used once
        _, _, seen = search(settings, judge, problem(members, seed), 400)
        best = min(seen, key=lambda one: one[1] if one[1] is not None else np.inf)
        return parts(best[0])[0]

    alphas = [found(seed) for seed in range(1, seeds + 1)]
    return float(np.mean([a[wanted].mean() for a in alphas])), float(np.mean([a[~wanted].mean() for a in alphas]))


FREE = StageSettings(penalty=0.0)


@pytest.mark.parametrize("members", [20, 100])
def test_from_the_middle_of_the_box_the_wanted_experts_are_told_from_the_others(members: int) -> None:
    keep, drop = reach(EvoMergingSettings(denoise=FREE, score_members=False), members, 3)
    assert keep - drop >= 0.55


def test_from_the_published_start_hardly_one_of_a_hundred_experts_is_dropped() -> None:
    keep, drop = reach(EvoMergingSettings("faithful", denoise=FREE), 100, 3)
    assert keep > 0.85
    assert drop >= 0.8


def test_from_the_published_start_twenty_experts_are_still_told_apart() -> None:
    keep, drop = reach(EvoMergingSettings("faithful", denoise=FREE), 20, 5)
    assert (keep, drop) == (pytest.approx(0.79, abs=0.1), pytest.approx(0.24, abs=0.1))


# --- stages ------------------------------------------------------------------------------------------------------


def test_the_first_stage_holds_beta_and_the_second_the_best_alpha() -> None:
    _, _, seen = search(QUICK, bowl, problem(4))
    assert [one.origin for one, _ in seen] == 60 * ["denoise"] + 100 * ["scale"]
    assert all((parts(one)[1] == 0.25).all() for one, _ in seen[:60])
    drawn = [loss + 0.05 * np.abs(parts(one)[0]).mean() for one, loss in seen[:60] if loss is not None]
    best = parts(seen[int(np.argmin(drawn))][0])[0]
    assert all((parts(one)[0] == best).all() for one, _ in seen[60:])


def test_the_winner_is_the_lowest_of_both_stages_and_no_worse_than_the_first() -> None:
    strategy, state, seen = search(QUICK, bowl, problem(4))
    losses = {one.number: loss for one, loss in seen}
    assert strategy.finalists(state)[0] == min(losses, key=lambda number: losses[number] or 0.0)
    assert losses[strategy.finalists(state)[0]] < 0.02


def test_as_published_finalists_are_compared_with_their_penalties() -> None:
    """A second stage that finds nothing better still wins, because scales are smaller than shares."""
    settings = replace(QUICK, preset="faithful", denoise=StageSettings(evaluations=60, start=0.9))
    strategy, state, seen = search(settings, lambda alpha, beta: 1.0, problem(4))
    drawn = [1.0 + 0.05 * np.abs(parts(one)[one.origin == "scale"]).mean() for one, _ in seen]
    assert strategy.finalists(state)[0] == int(np.argmin(drawn)) >= 60
    plain, state, _ = search(replace(settings, finalists_by="objective"), lambda alpha, beta: 1.0, problem(4))
    assert plain.finalists(state)[0] == 0


def test_signed_scales_are_found_in_the_second_stage() -> None:
    wanted = np.array([0.6, -0.3, 0.0, 0.6])
    settings = replace(QUICK, scale=StageSettings(evaluations=400, penalty=0.0))
    strategy, state, seen = search(settings, lambda alpha, beta: float(((beta - wanted) ** 2).mean()), problem(4))
    np.testing.assert_allclose(parts(seen[strategy.finalists(state)[0]][0])[1], wanted, atol=0.05)


def test_the_second_stage_begins_at_the_best_member_where_no_merge_was_better() -> None:
    def judge(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> float:
        return 2.0 + float(((beta - [0.0, 1.0, 0.0, 0.0]) ** 2).mean())

    tight = replace(QUICK, score_members=True, scale=StageSettings(evaluations=20, sigma=1e-4))
    strategy, state, seen = search(tight, judge, problem(4), members=[3, 1, 2, 3])
    alpha, beta = parts(seen[-1][0])
    np.testing.assert_allclose(beta, [0.0, 1.0, 0.0, 0.0], atol=0.01)
    assert alpha[1] == 1.0
    assert strategy.finalists(state)[0] == 1
    _, _, seen = search(tight, judge, problem(4), members=[3, 5, 4, 3])
    np.testing.assert_allclose(parts(seen[-1][0])[1], 0.25, atol=0.01)


def test_proposals_stay_in_the_operators_bounds() -> None:
    _, _, seen = search(
        replace(QUICK, scale=StageSettings(sigma=2.0)), lambda a, b: float(a.sum() - b.sum()), problem(3)
    )
    assert all(((parts(one)[0] >= 0) & (parts(one)[0] <= 1)).all() for one, _ in seen)
    assert all((np.abs(parts(one)[1]) <= 1.5).all() for one, _ in seen)


def test_failures_rank_last_and_a_first_stage_of_failures_keeps_everything() -> None:
    strategy, state, seen = search(QUICK, lambda a, b: None if (b == 0.25).all() else bowl(a, b), problem(4))
    assert all((parts(one)[0] == 1.0).all() for one, _ in seen[60:])
    assert min(strategy.finalists(state)) >= 60
    _, state, _ = search(QUICK, lambda a, b: None, problem(4))
    assert (state.told, state.hall) == (160, ())


def test_only_the_order_of_losses_matters_where_there_is_no_penalty() -> None:
    free = replace(
        QUICK, denoise=StageSettings(evaluations=60, penalty=0.0), scale=StageSettings(evaluations=60, penalty=0.0)
    )
    plain = search(free, bowl, problem(4))[2]
    bent = search(free, lambda a, b: float(np.exp(3 * bowl(a, b))), problem(4))[2]
    assert [one.recipe.digest for one, _ in plain] == [one.recipe.digest for one, _ in bent]


def test_it_ends_when_both_stages_are_spent_and_says_so() -> None:
    strategy, state, _ = search(QUICK, bowl, problem(4))
    assert "strategy.scale.evaluations" in (strategy.exhausted(state) or "")
    assert strategy.ask(state, 5) == (state, ())


# --- presets -----------------------------------------------------------------------------------------------------


def test_lorahub_is_the_second_stage_alone_under_equal_settings() -> None:
    hub = search(EvoMergingSettings("lorahub"), bowl, problem(20))[2]
    same = EvoMergingSettings(
        "faithful", denoise=StageSettings(evaluations=0), scale=StageSettings(0.0, 0.2, 0.05, 40), popsize=12
    )
    assert [one.recipe.digest for one, _ in hub] == [one.recipe.digest for one, _ in search(same, bowl, problem(20))[2]]
    assert len(hub) == 48  # 40, rounded up to whole generations of 12
    assert all((parts(one)[0] == 1.0).all() for one, _ in hub)


def test_presets_choose_how_factors_are_summed_unless_the_options_do() -> None:
    def options(settings: EvoMergingSettings) -> tuple[Any, ...]:
        strategy = EvoMerging(settings, problem(3))
        return strategy.ask(strategy.start(), 4)[1][-1].recipe.options

    assert options(EvoMergingSettings("improved", score_members=False)) == (("mode", "concat"),)
    assert options(EvoMergingSettings("faithful")) == (("mode", "ab_separate"),)
    space = replace(QUICK.space, options={"mode": "svd"})
    assert options(EvoMergingSettings("faithful", space)) == (("mode", "svd"),)


def test_members_come_first_only_in_the_improved_preset_or_when_asked_for() -> None:
    for settings, seeds in (
        (EvoMergingSettings(), 3),
        (EvoMergingSettings("faithful"), 0),
        (EvoMergingSettings("faithful", score_members=True), 3),
    ):
        strategy = EvoMerging(settings, problem(3))
        origins = [one.origin for one in strategy.ask(strategy.start(), 5)[1]]
        assert origins == (seeds * ["seed"] or 5 * ["denoise"])


def test_whole_checkpoints_are_searched_by_an_operator_whose_scale_comes_first() -> None:
    crumbs = load("operators", "breadcrumbs").declaration("breadcrumbs")
    space = OperatorSpace("operator", "breadcrumbs", fixed={"gamma": 0.0, "lambda": 1.0}, whole=("density", "weight"))
    settings = replace(QUICK, space=space, alpha="density", beta="weight")
    strategy = EvoMerging(settings, replace(problem(3), operators=(crumbs,)))
    _, asked = strategy.ask(strategy.start(), 5)
    for candidate in asked:
        weight, density, gamma, scale = np.split(np.array(candidate.recipe.segments[0].values), [3, 6, 9])
        assert (weight == 1 / 3).all()
        assert len(set(density.tolist())) == 3
        assert (gamma.tolist(), scale.tolist()) == ([0.0, 0.0, 0.0], [1.0])


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EvoMergingSettings(scale=StageSettings(evaluations=5)), "less than a generation of 20"),
        (EvoMergingSettings(denoise=StageSettings(evaluations=5)), "less than a generation of 20"),
        (EvoMergingSettings(scale=StageSettings(evaluations=0)), "strategy.scale.evaluations = 0"),
        (EvoMergingSettings(denoise=StageSettings(start=1.5)), "outside the bounds of alpha.m0"),
        (EvoMergingSettings(alpha="alhpa"), "has alpha, beta; did you mean 'alpha'"),
        (EvoMergingSettings(alpha="beta"), "also searches 'alpha'"),
        (EvoMergingSettings(space=OperatorSpace("operator", "factor_fusion", fixed={"alpha": 1.0})), "alpha"),
        (EvoMergingSettings(space=OperatorSpace("operator", "factor_fusion", shared=("beta",))), "beta': 1"),
        (EvoMergingSettings(space=OperatorSpace("operator", "factor_fusion", search={"beta": (1.0, -1.0)})), "below"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: EvoMergingSettings, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        EvoMerging(settings, problem(3))


def test_a_pool_of_one_or_without_a_base_is_refused() -> None:
    with pytest.raises(StrategyError, match="at least 2 pool members"):
        EvoMerging(EvoMergingSettings(), problem(1))
    with pytest.raises(StrategyError, match=r"needs pool\.base"):
        EvoMerging(EvoMergingSettings(), replace(problem(3), base=None))
