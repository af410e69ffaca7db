"""Optuna's samplers: what they find, what they are told, what is refused. Exact resume is the contract's business."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from evomerge.candidate import Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.testing.landscape import MIXED, problem, search, sphere, weights

optuna = pytest.importorskip("optuna", reason='pip install "evomerge[optuna]"')
from evomerge_strategies import optuna_sampler  # noqa: E402 - optuna may be absent
from evomerge_strategies.optuna_sampler import Name, OptunaSearch, OptunaSettings  # noqa: E402

SLOW_GP = pytest.param("gp", marks=pytest.mark.slow)
SAMPLERS = [SLOW_GP if name == "gp" else name for name in get_args(Name)]


def made(sampler: Any, members: int = 4, losses: int = 1, **settings: Any) -> OptunaSearch:
    if sampler == "gp":
        pytest.importorskip("torch", reason='pip install "evomerge[worker]"')
    given = {"score_members": False} | settings
    return OptunaSearch(OptunaSettings(sampler, **given), problem(members, objectives=losses))


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [("tpe", 200), pytest.param("gp", 24, marks=pytest.mark.slow), ("cma", 300), ("nsga2", 400)],
)
def test_they_come_closer_to_the_bottom_of_a_sphere_than_random_draws_do(sampler: Any, evaluations: int) -> None:
    options = {"population_size": 20} if sampler == "nsga2" else {}
    found, _ = search(made(sampler, options=options), sphere, evaluations)
    random, _ = search(made("random"), sphere, evaluations)
    assert found.hall[0][0] < random.hall[0][0] / 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_numbers_by_factors_and_whole_numbers_stay_what_they_are(sampler: Any) -> None:
    _, seen = search(made(sampler, members=2, space=MIXED), lambda x: float(x.sum()), 24)
    values = np.array([weights(candidate) for candidate in seen])
    low, high = np.array([0, 0, 1e-4, 1]), np.array([1, 1, 1, 9])
    assert (values >= low).all()
    assert (values <= high).all()
    assert set(values[:, 3]) <= set(range(1, 10))
    assert len(set(values[:, 3])) > 2


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3"])
def test_all_objectives_are_searched_and_the_front_is_what_no_other_result_beats(sampler: Any) -> None:
    def two(x: np.ndarray) -> tuple[float, float]:
        return sphere(x), float(((x - 0.7) ** 2).sum())

    strategy = made(sampler, members=2, losses=2, objectives="all")
    state, seen = search(strategy, two, 30)
    told = [two(weights(candidate)) for candidate in seen]
    unbeaten = {
        at for at, (a, b) in enumerate(told) if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in told)
    }
    front = strategy.finalists(state)
    assert set(front) == unbeaten
    assert told[front[0]][0] == min(loss for loss, _ in told)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("loss", [1.0, None], ids=["constant", "failing"])
def test_constant_scores_and_failures_only_are_survived(sampler: Any, loss: float | None) -> None:
    options = {"population_size": 5} if sampler.startswith("nsga") else {}
    strategy = made(sampler, members=3, options=options)
    state, seen = search(strategy, lambda _: loss, 24)
    assert len({candidate.recipe.digest for candidate in seen}) > 12
    assert strategy.finalists(state) == (() if loss is None else tuple(range(10)))


def test_tpe_keeps_away_from_what_failed() -> None:
    def half(x: np.ndarray) -> float | None:
        return None if x[0] > 0.5 else 1.0

    _, seen = search(made("tpe", members=2), half, 100)
    late = [half(weights(candidate)) for candidate in seen[50:]]
    assert sum(loss is None for loss in late) < 15


def test_what_was_told_of_the_pools_members_is_learnt_from() -> None:
    """The same proposals are told the same; only the members' own losses differ."""

    def proposals(loss_of_members: float) -> list[str]:
        strategy = made("tpe", members=3, score_members=True, options={"n_startup_trials": 3})
        state, seeds = strategy.ask(strategy.start(), 3)
        for at, seed in enumerate(seeds):
            state = strategy.tell(state, Evaluated(seed, Score((("loss", loss_of_members * at),))))
        return [candidate.recipe.digest for candidate in strategy.ask(state, 3)[1]]

    assert proposals(1.0) != proposals(-1.0)


def test_candidates_that_are_out_are_kept_away_from() -> None:
    strategy = made("tpe", members=2)
    state, _ = search(strategy, sphere, 40)
    _, together = strategy.ask(state, 2)
    waiting, (first,) = strategy.ask(state, 1)
    told = strategy.tell(waiting, Evaluated(first, Score((("loss", sphere(weights(first))),))))
    _, (after,) = strategy.ask(told, 1)
    assert together[0].recipe == first.recipe
    assert together[1].recipe != after.recipe


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_fresh_strategy_continues_as_the_old_one_would(sampler: Any) -> None:
    old = made(sampler, members=2, space=MIXED)
    state, _ = search(old, lambda x: float(x.sum()), 18, room=3)
    state, out = old.ask(state, 2)
    state = old.tell(state, Evaluated(out[1], Score((("loss", 0.1),))))
    fresh = made(sampler, members=2, space=MIXED)
    assert [c.recipe for c in fresh.ask(state, 3)[1]] == [c.recipe for c in old.ask(state, 3)[1]]


def test_another_history_than_the_recorded_one_is_found_out() -> None:
    state, _ = search(made("nsga2"), sphere, 6)
    moved = replace(state, vectors=(*state.vectors[:-1], state.vectors[-1] + 1e-9))
    with pytest.raises(StrategyError, match="proposes another candidate 5"):
        made("nsga2").ask(moved, 1)


def test_optunas_settings_are_left_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    search(made("qmc"), sphere, 4)
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("sampler", "settings", "message"),
    [
        ("tpe", {"options": {"n_startup_trails": 3}}, "did you mean 'n_startup_trials'"),
        ("tpe", {"options": {"n_startup_trials": True}}, "must be a whole number above 0, not True"),
        ("nsga2", {"options": {"population_size": 1}}, "greater than or equal to 2"),
        ("cma", {"options": {"use_separable_cma": True, "with_margin": True}}, "do not support"),
        ("qmc", {"options": {"qmc_type": "sobel"}}, "qmc_type"),
        ("cma", {"objectives": "all"}, "searches one objective"),
        ("tpe", {"space": WeightSpace(low=1.0, high=0.0)}, "not below"),
        (
            "random",
            {"space": OperatorSpace("operator", "mixed", fixed={"weight": 1, "rate": 1, "count": 1})},
            "nothing",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_evaluated(
    sampler: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StrategyError, match=message):
        made(sampler, **settings)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_sampler, "find_spec", lambda module: None if module == "cmaes" else math)
    with pytest.raises(StrategyError, match=r'needs cmaes.*pip install "evomerge\[optuna\]"'):
        made("cma")
