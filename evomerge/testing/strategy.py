"""What every strategy must hold; inherit `StrategyContract` and say how to make a fresh one.

The heart of it kills a study before and after each of its saves and demands that the resumed study equals the unbroken
one. Every run builds a fresh strategy, because an object that survives the crash would hide what it keeps to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest

from evomerge import codec
from evomerge.candidate import WHOLE, Candidate, Evaluated, Score, Split
from evomerge.itemorder import chosen
from evomerge.replay import restore
from evomerge.runner import Outcome, Plan, Runner
from evomerge.store.port import Store, StudyRecord, StudyStore
from evomerge.strategy import Group, Objective, Problem, Strategy
from evomerge.testing.mortal import Killed, Mortal, history
from evomerge.testing.workers import UnevenWorkers

ITEMS = 24
PROBLEM = Problem(
    seed=7,
    members=("low", "high", "odd"),
    groups=(Group("attention", 40), Group("rest", 9)),
    objectives=(Objective("accuracy"), Objective("loss", "minimize")),
    items=ITEMS,
    base="origin",
    losses=True,
    parts=True,
    slopes=True,
)


def judge(candidate: Candidate, split: Split) -> Score | str:
    """A pure function of (recipe, split, request) that looks like a fitness and fails one candidate in eleven."""
    word = int(candidate.recipe.digest[:15], 16)
    if word % 11 == 0 and candidate.parents:
        return "made to fail"
    random = np.random.default_rng([word, len(split) + 100 * candidate.request.replicate])
    items = random.random(ITEMS) < 0.3 + 0.5 * random.random()
    losses = random.random(ITEMS).astype(np.float32)
    request = candidate.request if split == "search" else WHOLE
    if request.ranges is not None:
        places = chosen(np.arange(ITEMS), request.ranges)
        items, losses = items[places], losses[places]
    slopes = random.standard_normal((len(PROBLEM.groups), len(PROBLEM.members) + 1)) if request.slopes else None
    objectives = (("accuracy", float(items.mean())), ("loss", float(losses.mean())))
    return Score(objectives, items, losses, slopes=slopes)


class StrategyContract:
    """Inherit this and override `make`; override ``problem``, ``budget`` or ``window`` where the strategy needs it."""

    problem: Problem = PROBLEM
    budget: int = 30
    window: int = 4
    stride: int = 1
    """Studies are killed at every so many saves."""

    def make(self, problem: Problem) -> Strategy[Any]:
        """A fresh strategy, as after a restart of the process."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """Where the studies of one test live; override to run over another store."""
        from evomerge.store.memory import MemoryStore

        with MemoryStore(uuid4().hex, commit_every=0) as store:
            yield store

    # --- helpers ----------------------------------------------------------------------------------------------

    def plan(self, telling: Any = "asked") -> Plan:
        """A short study with all three splits and frequent snapshots."""
        splits: tuple[Split, ...] = ("search", "selection", "report")
        return Plan(
            self.problem.objectives[0], self.budget, self.window, telling, 3, splits, snapshot_every=7, items=ITEMS
        )

    def create(self, store: Store, name: str) -> None:
        """A study of this problem."""
        store.create(StudyRecord(name, "", {}, self.problem.seed, "accuracy", "maximize"))

    def go(
        self, store: Store, name: str, workers: int = 1, kill: tuple[int, str] | None = None, **kind: Any
    ) -> Outcome:
        """Run or resume a study with a fresh strategy; ``kill`` it at a save if told so."""
        with self.opened(store, name, lost=kill is not None) as study:
            mortal = study if kill is None else cast(StudyStore, Mortal(study, *kill))
            executor = UnevenWorkers(judge, workers, seed=workers)
            return Runner(self.make(self.problem), mortal, executor, self.plan(**kind)).run()

    @contextmanager
    def opened(self, store: Store, name: str, lost: bool = False) -> Iterator[StudyStore]:
        """The study opened for writing. ``lost``: what was not yet durable goes the way of the killed driver."""
        study = store.open(name, write=True, steal=True)
        try:
            yield study
        finally:
            if lost:
                study.abandon()
            else:
                study.release()

    def unbroken(self, store: Store, **kind: Any) -> list[str]:
        """The history of a study that nothing disturbed."""
        self.create(store, "unbroken")
        self.go(store, "unbroken", **kind)
        return history(store.open("unbroken"))

    # --- the contract -----------------------------------------------------------------------------------------

    def test_asks_dense_numbers_and_never_too_many(self) -> None:
        strategy = self.make(self.problem)
        state, seen = strategy.start(), 0
        waiting: list[Candidate] = []
        for room in (3, 1, 0, 5, 2) * 6:
            before = state
            state, asked = strategy.ask(state, room)
            assert len(asked) <= room
            assert asked or codec.equal(before, state)
            assert [c.number for c in asked] == list(range(seen, seen + len(asked)))
            assert all(parent < c.number for c in asked for parent in c.parents)
            seen += len(asked)
            assert state.asked == seen
            waiting.extend(asked)
            for candidate in waiting:
                state = strategy.tell(state, _evaluated(candidate))
            waiting.clear()
            assert state.told == seen

    def test_asking_again_and_asking_in_parts_give_the_same(self) -> None:
        strategy = self.make(self.problem)
        state = self._warmed(strategy)
        after, whole = strategy.ask(state, 3)
        again, same = self.make(self.problem).ask(state, 3)
        assert [codec.dump(c) for c in whole] == [codec.dump(c) for c in same]
        assert codec.equal(after, again)
        parts: list[Candidate] = []
        for room in (1, 2):
            state, some = strategy.ask(state, room)
            parts.extend(some)
        assert [codec.dump(c) for c in whole] == [codec.dump(c) for c in parts]
        assert codec.equal(after, state)

    def test_states_survive_the_codec_and_are_never_changed(self) -> None:
        strategy = self.make(self.problem)
        state = self._warmed(strategy)
        text = codec.dump(state)
        loaded: Any = codec.load(strategy.State, text)
        after, asked = strategy.ask(state, 4)
        for candidate in asked:
            after = strategy.tell(after, _evaluated(candidate))
        assert codec.dump(state) == text
        fresh = self.make(self.problem)
        from_text, asked_again = fresh.ask(loaded, 4)
        for candidate in asked_again:
            from_text = fresh.tell(from_text, _evaluated(candidate))
        assert codec.equal(after, from_text)

    def test_nothing_depends_on_numpys_global_generator(self) -> None:
        def digests(seed: int) -> list[str]:
            np.random.seed(seed)  # the very thing under test
            strategy = self.make(self.problem)
            _, asked = strategy.ask(self._warmed(strategy), 4)
            return [c.recipe.digest for c in asked]

        assert digests(1) == digests(2)

    def test_finalists_were_scored_and_the_best_leads(self, store: Store) -> None:
        self.create(store, "s")
        outcome = self.go(store, "s")
        study = store.open("s")
        assert outcome.status == "finished"
        whole = [one for one in study.scores("search") if one.candidate.request.ranges is None]
        values = {one.candidate.number: one.score["accuracy"] for one in whole if one.score is not None}
        strategy = self.make(self.problem)
        state, _ = restore(strategy, study)
        finalists = strategy.finalists(state)
        assert finalists
        assert set(finalists) <= set(values)
        assert values[finalists[0]] == max(values.values())
        assert self.budget - 1 < study.items_asked(ITEMS) / ITEMS <= self.budget
        assert len(list(study.scores("report"))) == 1

    def test_failed_candidates_spend_budget_and_enter_no_population(self) -> None:
        strategy = self.make(self.problem)
        state = self._warmed(strategy)
        state, asked = strategy.ask(state, 1)
        before = strategy.population(state)
        after = strategy.tell(state, Evaluated(asked[0], failure="made to fail"))
        assert after.told == state.told + 1
        assert asked[0].number not in strategy.finalists(after)
        assert asked[0].number not in before

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_kill_at_any_save_changes_nothing(self, store: Store, when: str) -> None:
        expected = self.unbroken(store)
        for save in range(0, 1000, self.stride):
            name = f"killed-{when}-{save}"
            self.create(store, name)
            try:
                self.go(store, name, kill=(save, when))
            except Killed:
                self.go(store, name)
                assert history(store.open(name)) == expected, f"killed {when} save {save}"
            else:
                assert save > self.budget / self.window, "the study was never killed"
                return
        pytest.fail("a short study does not save a thousand times")

    def test_many_kills_in_one_study_change_nothing(self, store: Store) -> None:
        expected = self.unbroken(store)
        told = store.open("unbroken").summary().told
        self.create(store, "haunted")
        kills = 0
        while store.open("haunted").summary().status != "finished":
            with suppress(Killed):
                self.go(store, "haunted", kill=(kills % 3, "after"))
            kills += 1
            assert kills < 2 * told, "kills after a save must not undo it"
        assert kills > told / 4
        assert history(store.open("haunted")) == expected

    def test_the_number_of_workers_changes_nothing(self, store: Store) -> None:
        expected = self.unbroken(store)
        for workers in (2, 4):
            name = f"{workers} workers"
            self.create(store, name)
            self.go(store, name, workers=workers)
            assert history(store.open(name)) == expected

    def test_told_as_they_come_resumes_from_its_journal(self, store: Store) -> None:
        self.create(store, "eager")
        for save in range(2, 9, 3):
            with pytest.raises(Killed):
                self.go(store, "eager", workers=3, kill=(save, "after"), telling="completion")
        outcome = self.go(store, "eager", workers=3, telling="completion")
        study = store.open("eager")
        assert outcome.status == "finished"
        told = [e.candidate.number for turn in study.turns(items=False) for e in turn.told]
        assert sorted(told) == list(range(len(told)))
        assert study.items_asked(ITEMS) > (self.budget - 1) * ITEMS
        state, _ = restore(self.make(self.problem), study)
        assert state.told == len(told)

    def _warmed(self, strategy: Strategy[Any]) -> Any:
        """A state with some history."""
        state = strategy.start()
        while state.told < self.budget // 2:
            state, asked = strategy.ask(state, 1)
            for candidate in asked:
                state = strategy.tell(state, _evaluated(candidate))
        return state


def _evaluated(candidate: Candidate) -> Evaluated:
    verdict = judge(candidate, "search")
    if isinstance(verdict, str):
        return Evaluated(candidate, failure=verdict)
    return Evaluated(candidate, score=verdict)
