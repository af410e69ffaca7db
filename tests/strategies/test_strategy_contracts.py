"""Every built-in strategy, in several settings, against the contract."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.space import WeightSpace
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import StrategyContract
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.m2n2 import M2N2, M2N2Settings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings


class TestM2N2(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return M2N2(M2N2Settings(population=6, warm_up=3), problem)


class TestM2N2FromScratch(StrategyContract):
    window = 1

    def make(self, problem: Problem) -> Strategy[Any]:
        settings = M2N2Settings(population=5, start="scratch", scratch_members=3, mutation=0.01, alpha=1.5)
        return M2N2(settings, problem)


class TestM2N2Ablated(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        settings = M2N2Settings(population=5, attraction=False, split_point=False, alpha=0, subtract_minimum=True)
        return M2N2(settings, problem)


class TestRandomSearch(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return RandomSearch(RandomSearchSettings(), problem)


class TestCMAES(StrategyContract):
    budget = 50

    def make(self, problem: Problem) -> Strategy[Any]:
        return CMAES(CMAESSettings(), problem)


class TestSeparableCMAESOnASimplex(StrategyContract):
    window = 7

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return CMAES(CMAESSettings(space, popsize=5, diagonal=True, score_members=False), problem)


@pytest.mark.parametrize("strategy", [TestM2N2, TestRandomSearch, TestCMAES])
def test_a_smaller_window_is_another_study_but_a_longer_budget_is_the_same_one(
    strategy: type[StrategyContract],
) -> None:
    contract = strategy()
    made = contract.make(contract.problem)
    state = made.start()
    _, few = made.ask(state, 2)
    _, more = made.ask(state, 9)
    assert more[: len(few)] == few
