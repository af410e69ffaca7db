from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import MEMBER, Candidate, Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.settings import Choice
from evomerge.stages import Stage, Stages, StagesSettings
from evomerge.store.port import Store
from evomerge.strategy import Objective, Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract
from evomerge_strategies.kshot import KShot, KShotSettings, KShotState, complementary
from evomerge_strategies.random_search import RandomSearchSettings

MANY = replace(PROBLEM, members=tuple(f"m{at}" for at in range(14)))
ITEMS = 128


class TestKShot(StrategyContract):
    problem = MANY
    budget = 14

    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return KShot(KShotSettings(4), problem)


class TestHalving(StrategyContract):
    problem = MANY
    budget = 8  # of the whole: 14 members on 6 items, 4 on all 24

    def make(self, problem: Problem) -> Strategy[Any]:
        return KShot(KShotSettings(2, halving=True, least_items=4), problem)


def known(problem: Problem, seed: int = 0) -> dict[str, np.ndarray]:
    """What each member gets right; later members are better."""
    random = np.random.default_rng(seed)
    count = len(problem.members)
    return {f"{MEMBER}{name}": random.random(ITEMS) < (at + 1) / (count + 1) for at, name in enumerate(problem.members)}


def answer(candidate: Candidate, rows: dict[str, np.ndarray]) -> Evaluated:
    (source,) = candidate.recipe.sources
    ranges = candidate.request.ranges or ((0, ITEMS),)
    items = np.concatenate([rows[source][start:stop] for start, stop in ranges])
    return Evaluated(candidate, Score((("accuracy", float(items.mean())), ("loss", 0.0)), items))


def finish(strategy: KShot, rows: dict[str, np.ndarray], backwards: bool = False) -> tuple[KShotState, list[Candidate]]:
    state, everything = strategy.start(), []
    while strategy.exhausted(state) is None:
        state, asked = strategy.ask(state, 99)
        everything += asked
        for one in asked[::-1] if backwards else asked:
            state = strategy.tell(state, answer(one, rows))
    return state, everything


def problem_of(members: int) -> Problem:
    return replace(PROBLEM, members=tuple(f"m{at}" for at in range(members)), items=ITEMS, parts=True)


def test_without_diversity_the_best_are_kept_in_the_pools_order() -> None:
    strategy = KShot(KShotSettings(3, diversity=0), problem_of(8))
    state, asked = finish(strategy, known(problem_of(8)))
    assert strategy.members(state) == ("m5", "m6", "m7")
    assert strategy.finalists(state) == (7, 6, 5)
    assert strategy.population(state) == (None,) * 5 + (5, 6, 7)
    assert all(one.request.ranges is None for one in asked)


def test_a_twin_of_the_best_is_passed_over_for_one_that_knows_other_things() -> None:
    problem = problem_of(4)
    best = np.arange(ITEMS) < 80
    rows = {f"{MEMBER}m0": best, f"{MEMBER}m1": best.copy(), f"{MEMBER}m2": ~best, f"{MEMBER}m3": best & False}
    strategy = KShot(KShotSettings(2), problem)
    assert strategy.members(finish(strategy, rows)[0]) == ("m0", "m2")
    blunt = KShot(KShotSettings(2, diversity=0), problem)
    assert blunt.members(finish(blunt, rows)[0]) == ("m0", "m1")


def test_a_broken_member_is_as_different_as_can_be_but_adds_nothing() -> None:
    rows = [np.array([1.0, 1, 0, 0]), np.array([0.0, 1, 1, 0]), np.array([0.0, 0, 0, 0])]
    assert complementary(np.array([0.5, 0.5, 0.0]), rows, 2, 1.0) == (0, 1)


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_diversity_alone_covers_nearly_as_much_as_the_best_choice(k: int, count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).random((count, 12)) < 0.3
    chosen = complementary(rows.mean(axis=1), list(rows.astype(np.float64)), k, 1.0)
    assert len(chosen) == len(set(chosen)) == min(k, count)
    assert chosen[0] == rows.mean(axis=1).argmax()
    best = max(rows[list(some)].any(axis=0).sum() for some in combinations(range(count), min(k, count)))
    assert rows[list(chosen)].any(axis=0).sum() >= (1 - 1 / np.e) * best


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_without_diversity_only_gains_count(k: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gains = random.random(count)
    assert complementary(gains, list(random.random((count, 5))), k, 0.0) == tuple(np.argsort(-gains)[:k].tolist())


@pytest.mark.parametrize("members", [5, 9, 16, 33])
@pytest.mark.parametrize("backwards", [False, True])
def test_halving_spends_less_and_asks_no_item_twice_before_the_last_round(members: int, backwards: bool) -> None:
    problem, k = problem_of(members), 2
    strategy = KShot(KShotSettings(k, halving=True, diversity=0, least_items=8), problem)
    state, asked = finish(strategy, known(problem), backwards)
    spent = sum(one.request.size or ITEMS for one in asked)
    assert spent < members * ITEMS or (members < 4 * k and spent == members * ITEMS)
    assert strategy.finalists(state)
    whole = [one for one in asked if one.request.ranges is None]
    assert len(whole) == (2 * k if members >= 4 * k else members)
    assert set(strategy.finalists(state)) <= {one.number for one in whole}
    for source in {one.recipe.sources for one in asked}:
        parts = [one.request.ranges[0] for one in asked if one.recipe.sources == source and one.request.ranges]
        assert all(one[1] <= two[0] for one, two in combinations(parts, 2))
    assert f"m{members - 1}" in strategy.members(state)


def test_the_order_of_telling_decides_nothing() -> None:
    strategy = KShot(KShotSettings(2, halving=True, least_items=8), problem_of(16))
    rows = known(problem_of(16), 3)
    assert strategy.members(finish(strategy, rows)[0]) == strategy.members(finish(strategy, rows, backwards=True)[0])


def test_gains_of_rounds_are_means_over_all_items_so_far() -> None:
    problem = problem_of(16)
    strategy = KShot(KShotSettings(2, halving=True, least_items=8), problem)
    rows = known(problem, 5)
    state = strategy.start()
    for _ in range(2):
        state, asked = strategy.ask(state, 99)
        for one in asked:
            state = strategy.tell(state, answer(one, rows))
    assert asked[0].request.ranges is not None
    stop = asked[0].request.ranges[0][1]
    expected = [rows[f"{MEMBER}m{member}"][:stop].mean() for member in state.alive]
    np.testing.assert_allclose(state.gains, expected)


def test_minimized_objectives_are_turned() -> None:
    problem = replace(problem_of(6), objectives=(Objective("accuracy", "minimize"),))
    strategy = KShot(KShotSettings(2, diversity=0), problem)
    assert strategy.members(finish(strategy, known(problem))[0]) == ("m0", "m1")


def test_members_that_fail_are_dropped() -> None:
    problem = problem_of(4)
    strategy = KShot(KShotSettings(3), problem)
    state, asked = strategy.ask(strategy.start(), 9)
    rows = known(problem)
    for one in asked:
        failed = one.number in (1, 3)
        state = strategy.tell(state, Evaluated(one, failure="made to fail") if failed else answer(one, rows))
    assert strategy.members(state) == ("m0", "m2")
    assert strategy.exhausted(state) == "2 of 4 members are chosen"


def test_all_failed_members_leave_none() -> None:
    for halving in (False, True):
        strategy = KShot(KShotSettings(1, halving=halving, least_items=8), problem_of(8))
        state = strategy.start()
        for one in range(2):
            state, asked = strategy.ask(state, 99)
            assert bool(asked) == (one == 0)
            for failed in asked:
                state = strategy.tell(state, Evaluated(failed, failure="made to fail"))
        assert strategy.finalists(state) == ()
        assert "0 of 8" in (strategy.exhausted(state) or "")


def test_a_stage_after_it_merges_only_what_it_kept() -> None:
    problem = replace(problem_of(6), parts=False)
    stages = (Stage(Choice("kshot", KShotSettings(2, diversity=0))), Stage(Choice("random", RandomSearchSettings())))
    strategy, rows = Stages(StagesSettings(stages), problem), known(problem)
    state, asked = strategy.ask(strategy.start(), 99)
    for one in asked:
        state = strategy.tell(state, answer(one, rows))
    _, more = strategy.ask(state, 5)
    assert {source for one in more for source in one.recipe.sources} == {f"{MEMBER}m4", f"{MEMBER}m5"}


@pytest.mark.parametrize(
    ("settings", "problem", "why"),
    [
        (KShotSettings(5), PROBLEM, "k = 5 needs at least 5 pool members, the study has low, high, odd"),
        (KShotSettings(2), replace(PROBLEM, items=0), "diversity needs a score for each item.*set diversity: 0"),
        (
            KShotSettings(2, halving=True),
            replace(PROBLEM, parts=False),
            "halving needs a fitness that scores some of its items",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings: KShotSettings, problem: Problem, why: str) -> None:
    with pytest.raises(StrategyError, match=why):
        KShot(settings, problem)
