"""Strategies over layer paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evomerge.space import PathSpace
from evomerge.strategy import Group, Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings

LAYERED = replace(PROBLEM, groups=(Group("before", 4), *(Group(f"layer_{at}", 6) for at in range(6))))


class TestCMAESOverPaths(StrategyContract):
    problem = LAYERED

    def make(self, problem: Problem) -> Strategy[Any]:
        return CMAES(CMAESSettings(PathSpace("path"), popsize=6, score_members=False), problem)


class TestRandomSearchOverPaths(StrategyContract):
    problem = LAYERED

    def make(self, problem: Problem) -> Strategy[Any]:
        space = PathSpace("path", repeats=2, scaling="transition")
        return RandomSearch(RandomSearchSettings(space, score_members=False), problem)


def test_the_members_of_a_path_study_are_stacks_and_scored_only_if_asked_for() -> None:
    strategy = CMAES(CMAESSettings(PathSpace("path"), score_members=False), LAYERED)
    _, asked = strategy.ask(strategy.start(), 5)
    assert {one.recipe.operator for one in asked} == {"path"}
