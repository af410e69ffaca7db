"""Optimizers of other libraries against the contract of strategies."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.space import WeightSpace
from evomerge.store.port import Store
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import StrategyContract
from evomerge_strategies.nevergrad_optimizer import NevergradSearch, NevergradSettings
from evomerge_strategies.optuna_sampler import OptunaSearch, OptunaSettings

pytest.importorskip("optuna", reason='pip install "evomerge[optuna]"')
pytest.importorskip("nevergrad", reason='pip install "evomerge[nevergrad]"')


class TestOptunaTPE(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return OptunaSearch(OptunaSettings(options={"n_startup_trials": 5}), problem)


class TestOptunaNSGA2OverAllObjectives(StrategyContract):
    window = 5

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return OptunaSearch(OptunaSettings("nsga2", {"population_size": 6}, space, score_members=False), problem)


class TestOptunaCMAES(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return OptunaSearch(OptunaSettings("cma", {"popsize": 4}), problem)


class TestOptunaQMC(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return OptunaSearch(OptunaSettings("qmc", {"scramble": True}), problem)


class TestNevergradDE(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return NevergradSearch(NevergradSettings("TwoPointsDE", budget=100, num_workers=4), problem)


class TestNevergradNGOptOneAtATime(StrategyContract):
    """It chooses Cobyla, which runs in a thread of its own."""

    window = 1

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return NevergradSearch(NevergradSettings("NGOpt", budget=100, space=space, score_members=False), problem)


class TestNevergradTBPSA(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return NevergradSearch(NevergradSettings("TBPSA", budget=100, num_workers=4), problem)
