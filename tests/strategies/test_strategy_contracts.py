"""Every built-in strategy, in several settings, against the contract, over every store."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import zip_longest
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from evomerge.candidate import Evaluated
from evomerge.errors import ResumeError, StalledError
from evomerge.plugins import load
from evomerge.space import WeightSpace
from evomerge.store import open_store
from evomerge.store.port import Store
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.evo_merging import EvoMerging
from evomerge_strategies.evo_settings import EvoMergingSettings, StageSettings
from evomerge_strategies.frank_wolfe import FrankWolfe, FrankWolfeSettings
from evomerge_strategies.gauss_newton import GaussNewton, GaussNewtonSettings
from evomerge_strategies.generations import GenerationsState
from evomerge_strategies.m2n2 import M2N2, M2N2Settings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings


class OverEveryStore(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store


class TestM2N2(OverEveryStore):
    stride = 1

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


class TestGaussNewton(OverEveryStore):
    problem = replace(PROBLEM, losses=True)

    def make(self, problem: Problem) -> Strategy[Any]:
        return GaussNewton(GaussNewtonSettings(WeightSpace(per_group=False), radius=0.1, smallest=0.02), problem)


class TestRandomSearch(OverEveryStore):
    def make(self, problem: Problem) -> Strategy[Any]:
        return RandomSearch(RandomSearchSettings(), problem)


class TestCMAES(OverEveryStore):
    stride = 1

    def make(self, problem: Problem) -> Strategy[Any]:
        return CMAES(CMAESSettings(), problem)


class TestSeparableCMAESOnASimplex(StrategyContract):
    window = 7

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return CMAES(CMAESSettings(space, popsize=5, diagonal=True, score_members=False), problem)


class TestCMAESThatRepairsAndBeginsAgain(StrategyContract):
    """Generations of other sizes follow one another: steps so small that every run ends soon."""

    budget = 36

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        settings = CMAESSettings(space, sigma=1e-12, popsize=3, bounds="repair", at_stop="bipop", score_members=False)
        return CMAES(settings, problem)

    def test_runs_follow_one_another(self) -> None:
        strategy = self.make(self.problem)
        assert strategy.diagnostics(self._warmed(strategy))["runs"] > 3


class TestEvoMerging(OverEveryStore):
    problem = replace(PROBLEM, operators=(load("operators", "factor_fusion").declaration("factor_fusion"),))

    def make(self, problem: Problem) -> Strategy[Any]:
        stages = StageSettings(evaluations=12), StageSettings(evaluations=24)
        return EvoMerging(EvoMergingSettings(denoise=stages[0], scale=stages[1], popsize=4), problem)


class TestLoraHub(StrategyContract):
    problem = TestEvoMerging.problem
    window = 5

    def make(self, problem: Problem) -> Strategy[Any]:
        return EvoMerging(EvoMergingSettings("lorahub", popsize=5, finalists_by="objective"), problem)


class TestFrankWolfe(OverEveryStore):
    """Races of probes; the certificate is switched off, since it sees at once that these losses are noise."""

    budget = 14

    def make(self, problem: Problem) -> Strategy[Any]:
        return FrankWolfe(FrankWolfeSettings("probes", first_items=6, errors=0.0, iterations=1000), problem)


class TestFrankWolfeLayerWiseSoftWithGradients(StrategyContract):
    def make(self, problem: Problem) -> Strategy[Any]:
        settings = FrankWolfeSettings("slopes", mode="soft", vertices=2, per_group=True, iterations=1000)
        return FrankWolfe(settings, problem)


class TestFrankWolfeSoftWithProbesOnWholeSplits(StrategyContract):
    problem = replace(StrategyContract.problem, parts=False, slopes=False)

    def make(self, problem: Problem) -> Strategy[Any]:
        return FrankWolfe(FrankWolfeSettings(mode="soft", errors=0.0, start="uniform", iterations=1000), problem)


class TestFrankWolfeAwayOpenLoopOnScores(StrategyContract):
    budget = 14

    def make(self, problem: Problem) -> Strategy[Any]:
        settings = FrankWolfeSettings(
            "probes", "items", direction="away", step="open_loop", errors=0.0, first_items=6, iterations=1000
        )
        return FrankWolfe(settings, problem)


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


class Forgetful(RandomSearch):
    """Keeps a generator in the process, as Optuna's samplers do."""

    def __init__(self, settings: RandomSearchSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self._generator = np.random.default_rng(0)

    def _draw(self, number: int) -> list[float]:
        return [float(x) for x in self._generator.random(self._s.space.size(self._problem))]


class HalfAGeneration(CMAES):
    """Keeps what was told of the present generation on the object, as Vizier's designers do."""

    def __init__(self, settings: CMAESSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self._half: tuple[float, ...] = ()

    def tell(self, state: GenerationsState, evaluated: Evaluated) -> GenerationsState:
        known = [
            mine if math.isnan(kept) else kept
            for kept, mine in zip_longest(state.current, self._half, fillvalue=math.nan)
        ]
        after = super().tell(replace(state, current=tuple(known)), evaluated)
        self._half = after.current
        return replace(after, current=(math.nan,) * len(after.current))


@pytest.mark.parametrize(
    ("mutant", "settings"), [(Forgetful, RandomSearchSettings()), (HalfAGeneration, CMAESSettings())]
)
def test_the_contract_catches_what_resuming_would_lose(mutant: Any, settings: Any) -> None:
    class Contract(StrategyContract):
        def make(self, problem: Problem) -> Strategy[Any]:
            return mutant(settings, problem)

    lost = (AssertionError, ResumeError, StalledError)
    with open_store(f"memory://{uuid4().hex}", commit_every=0) as store, pytest.raises(lost):
        Contract().test_a_kill_at_any_save_changes_nothing(store, "after")
