"""Strategies for several objectives against the contract, over every store."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.space import WeightSpace
from evomerge.store.port import Store
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import StrategyContract
from evomerge_strategies.map import MAP, MAPSettings
from evomerge_strategies.map_nested import NestedMAP, NestedMAPSettings
from evomerge_strategies.nsga2 import NSGA2, NSGA2Settings
from evomerge_strategies.nsga3 import NSGA3, NSGA3Settings


class OverEveryStore(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store


class TestNSGA2(OverEveryStore):
    def make(self, problem: Problem) -> Strategy[Any]:
        return NSGA2(NSGA2Settings(popsize=6), problem)


class TestNSGA2OnASimplexWithASmallFront(StrategyContract):
    window = 9

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return NSGA2(NSGA2Settings(space, popsize=4, score_members=False, front=2), problem)


class TestNSGA3(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        return NSGA3(NSGA3Settings(WeightSpace("task_arithmetic", bounded=False), popsize=6), problem)


SMALL: dict[str, Any] = {"surrogate_population": 12, "surrogate_generations": 3}


class TestMAP(OverEveryStore):
    def make(self, problem: Problem) -> Strategy[Any]:
        return MAP(MAPSettings(verify=3, samples=14, **SMALL), problem)


class TestMAPThatSamplesAdaptively(StrategyContract):
    window = 6

    def make(self, problem: Problem) -> Strategy[Any]:
        return MAP(MAPSettings(verify=4, sampling="adaptive", **SMALL), problem)


class TestNestedMAP(StrategyContract):
    budget = 33

    def make(self, problem: Problem) -> Strategy[Any]:
        return NestedMAP(NestedMAPSettings(samples=11, verify=4, **SMALL), problem)
