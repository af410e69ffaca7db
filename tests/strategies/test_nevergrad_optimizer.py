"""nevergrad's optimizers: what they find, what is refused. Exact resume is the contract's business."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Evaluated
from evomerge.errors import StrategyError
from evomerge.space import WeightSpace
from evomerge.testing.landscape import MIXED, problem, search, sphere, weights

pytest.importorskip("nevergrad", reason='pip install "evomerge[nevergrad]"')
from evomerge_strategies import nevergrad_optimizer
from evomerge_strategies.nevergrad_optimizer import NevergradSearch, NevergradSettings

ONE_AT_A_TIME = ["NGOpt", "Cobyla", "NelderMead", "Powell", "SQP"]
SEVERAL = [
    "CMA",
    "DE",
    "DiagonalCMA",
    "DiscreteOnePlusOne",
    "NaiveTBPSA",
    "NoisyDE",
    "OnePlusOne",
    "PortfolioDiscreteOnePlusOne",
    "PSO",
    "RealSpacePSO",
    "ScrHammersleySearch",
    "Shiwa",
    "TBPSA",
    "TwoPointsDE",
]


def made(optimizer: str, members: int = 3, seed: int = 1, **settings: Any) -> NevergradSearch:
    given = {"score_members": False, "budget": 80 if optimizer == "NGOpt" else 300} | settings
    return NevergradSearch(NevergradSettings(optimizer, **given), problem(members, seed))


@pytest.mark.parametrize("optimizer", ["CMA", "Cobyla", "OnePlusOne", "TBPSA"])
def test_they_find_the_bottom_of_a_sphere(optimizer: str) -> None:
    state, _ = search(made(optimizer), sphere, 300)
    assert state.hall[0][0] < 1e-3


@pytest.mark.parametrize("optimizer", [*ONE_AT_A_TIME, *SEVERAL])
def test_a_fresh_strategy_continues_as_the_old_one_would(optimizer: str) -> None:
    workers = 1 if optimizer in ONE_AT_A_TIME else 3
    old = made(optimizer, num_workers=workers)
    state, _ = search(old, lambda x: None if x[0] > 0.9 else sphere(x), 60)
    state, out = old.ask(state, workers)
    assert len(out) == workers
    state = old.tell(state, Evaluated(out[-1], failure="broken"))
    expected = [candidate.recipe for candidate in old.ask(state, 1)[1]]
    assert expected
    assert [candidate.recipe for candidate in made(optimizer, num_workers=workers).ask(state, 1)[1]] == expected


@pytest.mark.parametrize("optimizer", ["DE", "NGOpt", "PortfolioDiscreteOnePlusOne"])
def test_numbers_by_factors_and_whole_numbers_stay_what_they_are(optimizer: str) -> None:
    _, seen = search(made(optimizer, members=2, space=MIXED), lambda x: float(x.sum()), 60)
    values = np.array([weights(candidate) for candidate in seen])
    low, high = np.array([0, 0, 1e-4, 1]), np.array([1, 1, 1, 9])
    assert (values >= low).all()
    assert (values <= high).all()
    assert set(values[:, 3]) <= set(range(1, 10))
    assert len(set(values[:, 3])) > 2


@pytest.mark.parametrize("optimizer", ["DE", "Cobyla", "TBPSA", "CMA"])
@pytest.mark.parametrize("loss", [1.0, None], ids=["constant", "failing"])
def test_constant_scores_and_failures_only_are_survived(optimizer: str, loss: float | None) -> None:
    strategy = made(optimizer)
    state, _ = search(strategy, lambda _: loss, 60)
    assert strategy.finalists(state) == (() if loss is None else tuple(range(10)))


def test_a_failure_ranks_behind_the_worst_that_was_told() -> None:
    def half(x: np.ndarray) -> float | None:
        return None if x[0] > 0.5 else 100.0 + sphere(x)

    state, _ = search(made("CMA"), half, 200)
    assert state.hall[0][0] < 100.01


def test_a_space_without_bounds_is_left_and_a_start_is_begun_from() -> None:
    free = WeightSpace(bounded=False)
    state, seen = search(made("CMA", space=free, start=0.0), lambda x: float(((x - 2) ** 2).sum()), 300)
    assert state.hall[0][0] < 0.01
    assert np.abs(weights(seen[0])).max() < 1.0


def test_no_more_are_out_than_it_has_workers_and_none_beyond_its_budget() -> None:
    strategy = made("DE", budget=5, num_workers=2)
    state, asked = strategy.ask(strategy.start(), 9)
    assert len(asked) == 2
    assert strategy.exhausted(state) is None
    state, seen = search(strategy, sphere, 9)
    assert len(seen) == 5
    assert "has spent strategy.budget = 5" in (strategy.exhausted(state) or "")


def test_candidates_say_what_ngopt_chose_and_seeds_differ() -> None:
    _, (one,) = made("NGOpt").ask(made("NGOpt").start(), 1)
    assert one.origin == "NGOpt: Cobyla"
    draws = [search(made("DE", seed=seed), sphere, 5)[1] for seed in (1, 2)]
    assert weights(draws[0][-1]).tolist() != weights(draws[1][-1]).tolist()


def test_another_history_than_the_recorded_one_is_found_out() -> None:
    state, _ = search(made("DE"), sphere, 6)
    moved = replace(state, vectors=(*state.vectors[:-1], state.vectors[-1] + 1e-9))
    with pytest.raises(StrategyError, match="proposes another candidate 5"):
        made("DE").ask(moved, 1)


def test_an_optimizer_that_uses_the_global_generator_is_refused_and_that_one_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = nevergrad_optimizer._Optimizer.propose
    monkeypatch.setattr(
        nevergrad_optimizer._Optimizer, "propose", lambda self, number: honest(self, number) + np.random.rand()
    )
    before = np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(StrategyError, match="draws from a global random generator"):
        made("DE", budget=77)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before


def test_threads_of_sequential_optimizers_keep_no_program_alive() -> None:
    strategy = made("Cobyla")
    strategy.ask(strategy.start(), 1)
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert any("Messaging" in type(thread).__name__ for thread in others)
    assert all(thread.daemon for thread in others if "Messaging" in type(thread).__name__)


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        ("NGOpd", {}, "did you mean 'NGOpt'"),
        ("Cobyla", {"num_workers": 2}, "Cobyla is sequential; set num_workers: 1"),
        ("DE", {"start": 1.5}, "start = 1.5 is outside"),
        ("PCABO", {}, "cannot go on: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_evaluated(
    optimizer: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StrategyError, match=message):
        made(optimizer, **settings)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nevergrad_optimizer, "find_spec", lambda _: None)
    with pytest.raises(StrategyError, match=r'pip install "evomerge\[nevergrad\]"'):
        made("DE")
