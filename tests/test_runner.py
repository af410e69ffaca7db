"""The runner: the end of a study, pauses, larger budgets, failures. Exact resume is the strategies' contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from evomerge.candidate import Candidate, Evaluated, Score, Split
from evomerge.errors import ResumeError, StalledError
from evomerge.runner import Outcome, Plan, Progress, Runner
from evomerge.store import open_store
from evomerge.store.port import Store, StudyRecord
from evomerge.testing.mortal import Killed, history
from evomerge.testing.strategy import PROBLEM, judge
from evomerge.testing.workers import Judge, UnevenWorkers
from evomerge_strategies.m2n2 import M2N2, M2N2Settings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings

PLAN = Plan(PROBLEM.objectives[0], budget=30, window=4, finalists=4, splits=("search", "selection", "report"))


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store(f"memory://{uuid4().hex}", commit_every=0) as store:
        store.create(StudyRecord("s", "", {}, 7, "accuracy", "maximize"))
        yield store


def run(store: Store, plan: Plan = PLAN, judge: Judge = judge, strategy: Any = None, **watch: Any) -> Outcome:
    study = store.open("s", write=True)
    try:
        chosen = strategy or RandomSearch(RandomSearchSettings(), PROBLEM)
        return Runner(chosen, study, UnevenWorkers(judge, 2), plan, **watch).run()
    finally:
        study.release()


def with_accuracy(value: float) -> Score:
    return Score((("accuracy", float(value)), ("loss", 0.0)), np.zeros(24, dtype=bool))


def test_selection_chooses_among_the_finalists_and_report_is_touched_once(store: Store) -> None:
    def overfitted(candidate: Candidate, split: Split) -> Score:
        flattered = {"search": candidate.number / 100, "selection": -candidate.number / 100, "report": 0.5}
        return with_accuracy(flattered[split])

    outcome = run(store, judge=overfitted)
    study = store.open("s")
    assert sorted(e.candidate.number for e in study.scores("selection")) == [26, 27, 28, 29]
    assert outcome.final == 26 == study.summary().final
    assert [e.candidate.number for e in study.scores("report")] == [26]


def test_without_a_selection_split_the_best_in_search_is_final(store: Store) -> None:
    plan = replace(PLAN, splits=("search",))
    assert run(store, plan, lambda c, _: with_accuracy(-abs(c.number - 11))).final == 11


def test_a_finalist_that_fails_on_selection_is_not_chosen(store: Store) -> None:
    def fragile(candidate: Candidate, split: Split) -> Score | str:
        return "broken" if split == "selection" and candidate.number == 29 else with_accuracy(candidate.number)

    assert run(store, judge=fragile).final == 28


def test_a_pause_and_a_larger_budget_give_the_study_that_had_them_from_the_start(store: Store) -> None:
    store.create(StudyRecord("whole", "", {}, 7, "accuracy", "maximize"))
    with_all = store.open("whole", write=True)
    Runner(RandomSearch(RandomSearchSettings(), PROBLEM), with_all, UnevenWorkers(judge), PLAN).run()
    turns = iter([False] * 9 + [True])
    assert run(store, stop=lambda: next(turns)).status == "paused"
    assert store.open("s").summary().status == "paused"
    assert run(store).status == "finished"
    assert history(store.open("s")) == history(with_all)
    with_all.release()
    assert run(store, replace(PLAN, budget=45)).status == "finished"
    assert store.open("s").summary().told == 45


def test_a_stop_while_finalists_are_scored_pauses_and_goes_on_there(store: Store) -> None:
    def stop() -> bool:
        study = store.open("s")
        return study.summary().told == PLAN.budget and len(list(study.scores("selection"))) == 2

    assert run(store, stop=stop).status == "paused"
    assert run(store).status == "finished"
    assert len(list(store.open("s").scores("selection"))) == PLAN.finalists


def test_finished_evaluations_are_never_repeated(store: Store) -> None:
    seen: list[tuple[int, Split]] = []

    def counting(candidate: Candidate, split: Split) -> Score | str:
        seen.append((candidate.number, split))
        return judge(candidate, split)

    for pause in (1, 3, 7, 12, 0):
        turns = iter([False] * pause + [True] if pause else [False] * 99)
        run(store, judge=counting, stop=lambda: next(turns))  # noqa: B023  # called before the next round
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) == PLAN.budget + PLAN.finalists + 1


def test_failures_are_told_noted_and_never_stop_a_study(store: Store) -> None:
    outcome = run(store, judge=lambda c, _: "no luck" if c.number % 2 else with_accuracy(c.number))
    summary = store.open("s").summary()
    assert outcome.status == "finished"
    assert (summary.told, summary.failed) == (30, 15)
    noted = [event for event in store.open("s").events() if event.kind == "failed"]
    assert len(noted) == 15
    assert noted[0].text == "no luck"


def test_a_study_in_which_nothing_can_be_scored_stops_and_says_so(store: Store) -> None:
    outcome = run(store, judge=lambda c, _: "broken", strategy=M2N2(M2N2Settings(), PROBLEM))
    assert outcome.status == "stopped"
    assert "0 of 3 starting models" in outcome.reason
    assert store.open("s").summary().status == "stopped"


def test_a_strategy_that_asks_nothing_and_gives_no_reason_is_called_stalled(store: Store) -> None:
    class Silent(RandomSearch):
        def ask(self, state: Any, room: int) -> Any:
            return (state, ()) if state.asked >= 5 else super().ask(state, min(room, 5 - state.asked))

    with pytest.raises(StalledError, match="after 5 results"):
        run(store, strategy=Silent(RandomSearchSettings(), PROBLEM))


def test_a_strategy_that_now_asks_something_else_is_refused(store: Store) -> None:
    def killed() -> bool:
        raise Killed

    with pytest.raises(Killed):
        run(store, stop=killed)
    with pytest.raises(ResumeError, match="another candidate 0"):
        run(store, strategy=RandomSearch(RandomSearchSettings(score_members=False), PROBLEM))


def test_progress_is_reported_with_the_strategys_own_numbers(store: Store) -> None:
    seen: list[Progress] = []
    run(store, strategy=M2N2(M2N2Settings(population=5), PROBLEM), on_progress=seen.append)
    assert seen[-1].told == seen[-1].budget == 30
    assert {"coverage", "entropy"} <= set(seen[-1].numbers)
    assert seen[-1].best == max(
        e.score["accuracy"] for e in store.open("s").scores("search") if isinstance(e, Evaluated) and e.score
    )
