"""Policies around strategies: the strategies' contract holds for them, and they do what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.replay import restore
from evomerge.settings import EvaluationSettings
from evomerge.space import WeightSpace
from evomerge.spending import wrapped
from evomerge.store import open_store
from evomerge.store.port import Store, StudyRecord, StudyStore
from evomerge.strategy import Objective, Problem, Strategy
from evomerge.testing.strategy import ITEMS, PROBLEM, StrategyContract
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.m2n2 import M2N2, M2N2Settings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings

NOISY = replace(PROBLEM, noisy=True)


def whole_values(study: StudyStore, minimized: bool = False) -> dict[int, float]:
    """By the number of its first evaluation, the gain of every candidate that all items were asked of."""
    rounds: dict[str, list[Evaluated]] = defaultdict(list)
    for one in study.scores("search"):
        rounds[one.candidate.recipe.digest].append(one)
    found = {}
    for ones in rounds.values():
        scores = [one.score for one in ones if one.score is not None]
        rows = [
            -one.losses if minimized else one.items
            for one in scores
            if one.items is not None and one.losses is not None
        ]
        if sum(row.size for row in rows) == ITEMS:
            found[ones[0].candidate.number] = float(np.concatenate(rows).mean(dtype=np.float64))
    return found


class InRounds(StrategyContract):
    """The contract, where a candidate's score is spread over its rounds."""

    def create(self, store: Store, name: str) -> None:
        main = self.problem.objectives[0]
        store.create(StudyRecord(name, "", {}, self.problem.seed, main.name, main.direction))

    def test_finalists_were_scored_and_the_best_leads(self, store: Store) -> None:
        self.create(store, "s")
        assert self.go(store, "s").status == "finished"
        study, strategy = store.open("s"), self.make(self.problem)
        main = self.problem.objectives[0]
        values = whole_values(study, main.direction == "minimize")
        state, _ = restore(strategy, study)
        finalists = strategy.finalists(state)
        assert set(finalists) <= set(values)
        assert values[finalists[0]] == pytest.approx(max(values.values()))
        summary = study.summary()
        assert main.gain(summary.best or 0.0) == pytest.approx(max(values.values()))
        assert summary.best_number == finalists[0]
        assert self.budget - 1 < study.items_asked(ITEMS) / ITEMS <= self.budget
        assert summary.told > self.budget


class TestRace(InRounds):
    budget = 8

    @pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.pg)])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
        urls = {"memory": f"memory://{uuid4().hex}", "sqlite": f"sqlite:///{tmp_path}/study.db"}
        url = urls.get(request.param) or request.getfixturevalue("postgres_url")
        with open_store(url, commit_every=0) as store:
            yield store

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = RandomSearch(RandomSearchSettings(), problem)
        return wrapped(inner, EvaluationSettings(stop="race", first=6, confidence=0.6), problem)


class TestRaceOfLosses(InRounds):
    """Losses are no right/wrong answers: a t bound in place of bets."""

    budget = 8
    problem = replace(PROBLEM, objectives=(Objective("loss", "minimize"), Objective("accuracy")))

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = CMAES(CMAESSettings(WeightSpace("simplex", per_group=False), popsize=5), problem)
        return wrapped(inner, EvaluationSettings(stop="race", first=4, confidence=0.7), problem)


class TestRaceByAbilities(InRounds):
    budget = 8

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = RandomSearch(RandomSearchSettings(), problem)
        return wrapped(inner, EvaluationSettings(stop="race", first=6, confidence=0.7, estimator="irt"), problem)


class TestHalvingOfGenerations(InRounds):
    budget = 8

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = CMAES(CMAESSettings(WeightSpace("simplex", per_group=False), popsize=6), problem)
        return wrapped(inner, EvaluationSettings(stop="halving", first=4), problem)


class TestHalvingOfBatches(InRounds):
    budget = 8
    window = 3

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = RandomSearch(RandomSearchSettings(score_members=False), problem)
        return wrapped(inner, EvaluationSettings(stop="halving", first=5, batch=7), problem)


class TestReplicates(StrategyContract):
    budget = 20
    problem = NOISY

    def make(self, problem: Problem) -> Strategy[Any]:
        settings = EvaluationSettings(replicates=2, reevaluate=2, reevaluate_every=3)
        return wrapped(RandomSearch(RandomSearchSettings(), problem), settings, problem)

    def test_finalists_were_scored_and_the_best_leads(self, store: Store) -> None:
        self.create(store, "s")
        self.go(store, "s")
        study, strategy = store.open("s"), self.make(self.problem)
        state, _ = restore(strategy, study)
        gains = defaultdict(list)
        for one in study.scores("search"):
            if one.score is not None:
                gains[one.candidate.recipe.digest].append(one.score["accuracy"])
        finalists = study.candidates(strategy.finalists(state))
        means = [float(np.mean(gains[one.recipe.digest])) for one in finalists]
        assert study.summary().best == pytest.approx(means[0])
        assert study.summary().best_number == finalists[0].number
        assert max(len(values) for values in gains.values()) > 3, "leaders come again and again"
        assert study.summary().told == self.budget


class TestReplicatesOfARace(InRounds):
    budget = 12
    problem = NOISY

    def make(self, problem: Problem) -> Strategy[Any]:
        settings = EvaluationSettings(stop="race", first=6, confidence=0.6, replicates=2)
        return wrapped(RandomSearch(RandomSearchSettings(), problem), settings, problem)

    def test_finalists_were_scored_and_the_best_leads(self, store: Store) -> None:
        self.create(store, "s")
        assert self.go(store, "s").final is not None
        requests = store.open("s").requests()
        assert {request.replicate for request in requests} == {0, 1}
        assert {6, ITEMS} <= {request.size for request in requests}


# --- what they do -------------------------------------------------------------------------------------------------


class Steps(RandomSearch):
    """Random search that remembers what it was told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(RandomSearchSettings(), problem)
        self.heard: list[Evaluated] = []

    def tell(self, state: Any, evaluated: Evaluated) -> Any:
        self.heard.append(evaluated)
        return super().tell(state, evaluated)


BIG = replace(PROBLEM, items=400)


def answers(candidate: Candidate, right: Any) -> Evaluated:
    """The candidate's share of the right answers, with the places that it asked for."""
    items = np.concatenate([right[start:stop] for start, stop in candidate.request.ranges or ((0, len(right)),)])
    return Evaluated(candidate, Score((("accuracy", float(items.mean())), ("loss", float(1 - items.mean()))), items))


def played(
    settings: EvaluationSettings, right: Any, results: int, window: int = 4
) -> tuple[Steps, Any, list[Candidate]]:
    """``results`` told by a ``right(recipe digest)`` that says which of the items are answered rightly."""
    inner = Steps(BIG)
    strategy = wrapped(inner, settings, BIG)
    state, asked = strategy.start(), list[Candidate]()
    while state.told < results:
        state, new = strategy.ask(state, window - (state.asked - state.told))
        asked += new
        candidate = asked[state.told]
        state = strategy.tell(state, answers(candidate, right(candidate)))
    return inner, state, asked


def by_luck(chance: float) -> Any:
    def right(candidate: Candidate) -> Any:
        if candidate.origin == "seed":
            return np.arange(400) % 10 < 8
        return np.random.default_rng(int(candidate.recipe.digest[:8], 16)).random(400) < chance

    return right


def test_a_race_drops_the_hopeless_early_and_tells_estimates() -> None:
    inner, state, asked = played(EvaluationSettings(stop="race", first=20), by_luck(0.3), 60)
    estimates = [one.score for one in inner.heard if one.score is not None and one.score.notes]
    assert state.dropped == len(estimates) > 20
    assert all(score["accuracy"] < 0.8 for score in estimates)
    assert np.mean([score["accuracy"] for score in estimates]) == pytest.approx(0.3, abs=0.05)
    assert "of 400 items, standard error" in estimates[0].notes[0][1]
    later = [one.request.size or 0 for one in asked if one.origin != "seed"]
    assert np.mean(later) < 60


def test_a_race_scores_what_may_win_on_all_items() -> None:
    inner, _, asked = played(EvaluationSettings(stop="race", first=20), by_luck(0.9), 60)
    rounds = [one.request.ranges for one in asked if one.recipe == asked[3].recipe]
    assert rounds == [((0, 20),), ((20, 40),), ((40, 80),), ((80, 160),), ((160, 320),), ((320, 400),)]
    full = next(one.score for one in inner.heard if one.candidate.number == 3)
    assert full is not None
    assert not full.notes
    assert full["accuracy"] == pytest.approx(by_luck(0.9)(asked[3]).mean())


def test_abilities_predict_what_a_mixture_of_members_scores() -> None:
    answered = [np.arange(400) % 10 < 6, np.arange(400) % 10 >= 4]  # each member is good at its own items

    def right(candidate: Candidate) -> Any:
        if candidate.origin == "seed":
            return answered[candidate.number % 2]
        return answered[0] & (np.arange(400) % 3 > 0)

    errors = {}
    for estimator in ("paired", "irt"):
        settings = EvaluationSettings(stop="race", first=20, estimator=estimator)  # type: ignore[arg-type]
        inner, state, _ = played(settings, right, 60)
        told = [one.score["accuracy"] for one in inner.heard if one.score is not None and one.score.notes]
        assert state.dropped == len(told) > 10
        errors[estimator] = np.mean(np.abs(np.array(told) - right(inner.heard[-1].candidate).mean()))
    assert errors["irt"] < 0.1


def test_halving_scores_one_of_a_batch_on_all_items() -> None:
    settings = EvaluationSettings(stop="halving", first=25, batch=8)
    inner, _, asked = played(settings, by_luck(0.5), 60, window=8)
    whole = [one.candidate.number for one in inner.heard if one.score is not None and not one.score.notes]
    assert len(whole) * 8 == len(inner.heard)
    sizes = [sum(one.request.size or 0 for one in asked if one.recipe == first.recipe) for first in asked[:8]]
    assert sorted(sizes) == [25, 25, 25, 25, 50, 50, 100, 400]


@pytest.mark.parametrize(
    ("settings", "problem", "message"),
    [
        ({"stop": "race"}, replace(PROBLEM, parts=False), "scores some of its items"),
        ({"stop": "halving"}, replace(PROBLEM, items=0), "scores some of its items"),
        ({"stop": "race", "first": 24}, PROBLEM, "first is 24, and there are 24"),
        ({"stop": "halving", "estimator": "irt"}, PROBLEM, "set evaluation.stop: race"),
        ({"estimator": "irt"}, PROBLEM, "set evaluation.stop: race"),
        ({"replicates": 2}, PROBLEM, "same score each time"),
        ({"reevaluate": 1}, PROBLEM, "same score each time"),
        ({"replicates": 2}, replace(NOISY, parts=False), "tells replicates apart"),
        ({"stop": "race", "first": 8, "reevaluate": 1}, NOISY, "stop: never"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], problem: Problem, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        wrapped(RandomSearch(RandomSearchSettings(), problem), EvaluationSettings(**settings), problem)


def test_a_strategy_that_needs_whole_scores_is_not_raced() -> None:
    with pytest.raises(StrategyError, match="needs every score whole"):
        wrapped(M2N2(M2N2Settings(), PROBLEM), EvaluationSettings(stop="race", first=8), PROBLEM)


def test_without_a_policy_the_strategy_is_itself() -> None:
    inner = RandomSearch(RandomSearchSettings(), PROBLEM)
    assert wrapped(inner, EvaluationSettings(order="random"), PROBLEM) is inner


def test_an_objective_that_is_no_mean_over_items_is_refused() -> None:
    strategy = wrapped(RandomSearch(RandomSearchSettings(), BIG), EvaluationSettings(stop="race"), BIG)
    state, (first,) = strategy.ask(strategy.start(), 1)
    odd = Score((("accuracy", 0.123), ("loss", 0.0)), np.arange(400) % 2 == 0)
    with pytest.raises(StrategyError, match="mean over items of neither"):
        strategy.tell(state, Evaluated(first, odd))


def test_abilities_need_answers() -> None:
    settings = EvaluationSettings(stop="race", estimator="irt")
    problem = replace(BIG, objectives=(Objective("loss", "minimize"),))
    strategy = wrapped(RandomSearch(RandomSearchSettings(), problem), settings, problem)
    state, (first,) = strategy.ask(strategy.start(), 1)
    with pytest.raises(StrategyError, match="scores from 0 to 1"):
        strategy.tell(state, Evaluated(first, Score((("loss", 2.0),), np.full(400, 2.0))))


def test_the_best_of_a_batch_that_fails_late_is_followed_by_the_next() -> None:
    inner = Steps(BIG)
    strategy = wrapped(inner, EvaluationSettings(stop="halving", first=200, batch=4), BIG)
    state, asked = strategy.ask(strategy.start(), 4)
    for rank, candidate in enumerate(asked):
        state = strategy.tell(state, answers(candidate, np.arange(400) % 8 > rank))
    for _ in range(2):
        state, later = strategy.ask(state, 1)
        state = strategy.tell(state, Evaluated(later[0], failure="broken"))
    state, later = strategy.ask(state, 1)
    assert later[0].recipe == asked[2].recipe
    strategy.tell(state, answers(later[0], np.arange(400) % 8 > 2))
    assert [one.failure for one in inner.heard] == ["broken", "broken", None, None]


def test_lower_bounds_and_not_luck_choose_the_leader() -> None:
    """One lucky evaluation is overtaken by what proves good again and again."""
    settings = EvaluationSettings(reevaluate=2, reevaluate_every=2)
    strategy = wrapped(RandomSearch(RandomSearchSettings(), NOISY), settings, NOISY)
    state, lucky = strategy.start(), 5
    for _ in range(60):
        state, (candidate,) = strategy.ask(state, 1)
        value = 0.6 if candidate.request.replicate == 0 else 0.5
        if candidate.number == lucky:
            value, digest = 0.9, candidate.recipe.digest
        elif candidate.number > lucky and candidate.recipe.digest == digest:
            value = 0.2
        state = strategy.tell(state, Evaluated(candidate, Score((("accuracy", value), ("loss", 0.0)))))
    assert strategy.finalists(state)[0] != lucky
    assert strategy.diagnostics(state)["noise"] > 0
