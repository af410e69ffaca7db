"""Strategies one after the other: the contract over every store, numbers, lineage, seeds and narrowed pools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from evomerge import codec, plugins
from evomerge.candidate import ANCESTOR, MEMBER, WHOLE, Candidate, Evaluated, Recipe, Request, Score
from evomerge.errors import StrategyError
from evomerge.settings import Choice
from evomerge.space import WeightSpace
from evomerge.stages import Stage, Stages, StagesSettings
from evomerge.store.port import Store
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract, judge
from evomerge_strategies.cma_es import CMAESSettings
from evomerge_strategies.m2n2 import M2N2Settings
from evomerge_strategies.random_search import RandomSearchSettings
from evomerge_strategies.seeds import member_recipe, pool_seeds

RANDOM = Choice("random", RandomSearchSettings())
CMA = Choice("cma", CMAESSettings(WeightSpace(per_group=False), popsize=4, score_members=False))
M2N2 = Choice("m2n2", M2N2Settings(population=4))


@dataclass(frozen=True)
class ProbeSettings:
    """What the probe leaves to the stages after it, and how it asks."""

    leaves: tuple[str, ...] | None = None
    limit: int | None = None
    request: Request = WHOLE


@dataclass(frozen=True)
class ProbeState:
    asked: int = 0
    told: int = 0
    slopes: tuple[tuple[float, ...], ...] = ()


class Probe(Strategy[ProbeState]):
    """Asks for the last member again and again, made from the first seed where it has one."""

    Settings = ProbeSettings
    State = ProbeState

    def __init__(self, settings: ProbeSettings, problem: Problem) -> None:
        if not problem.members:
            raise StrategyError("the probe needs a member")
        self.s, self.problem = settings, problem

    def start(self) -> ProbeState:
        return ProbeState()

    def ask(self, state: ProbeState, room: int) -> tuple[ProbeState, tuple[Candidate, ...]]:
        left = room if self.s.limit is None else min(room, self.s.limit - state.asked)
        recipe = member_recipe(self.problem, self.problem.members[-1])
        parents = (-1,) if self.problem.seeds else ()
        numbers = range(state.asked, state.asked + max(left, 0))
        asked = tuple(Candidate(n, recipe, parents, request=self.s.request) for n in numbers)
        return replace(state, asked=numbers.stop), asked

    def tell(self, state: ProbeState, evaluated: Evaluated) -> ProbeState:
        slopes = evaluated.score.slopes if evaluated.score else None
        seen = () if slopes is None else (tuple(slopes[0].tolist()),)
        return replace(state, told=state.told + 1, slopes=state.slopes + seen)

    def population(self, state: ProbeState) -> tuple[int | None, ...]:
        return tuple(range(state.told))

    def finalists(self, state: ProbeState) -> tuple[int, ...]:
        return tuple(range(state.told))

    def exhausted(self, state: ProbeState) -> str | None:
        return "enough" if state.told == self.s.limit else None

    def members(self, state: ProbeState) -> tuple[str, ...] | None:
        return self.s.leaves


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> None:
    real = plugins.strategy
    monkeypatch.setattr(plugins, "strategy", lambda name: Probe if name == "probe" else real(name))


def chain(*stages: Stage, problem: Problem = PROBLEM) -> Stages:
    return Stages(StagesSettings(stages, seeds=3), problem)


def probing(evaluations: int | None = None, join_pool: bool = False, **settings: Any) -> Stage:
    return Stage(Choice("probe", ProbeSettings(**settings)), evaluations, join_pool)


def scored(candidate: Candidate, value: float = 0.5, slopes: Any = None) -> Evaluated:
    return Evaluated(candidate, Score((("accuracy", value), ("loss", 1.0)), slopes=slopes))


def go(strategy: Strategy[Any], evaluations: int, window: int = 3) -> tuple[Any, list[Candidate]]:
    """So many candidates, each scored by its recipe."""
    state, asked, waiting = strategy.start(), [], []
    while state.told < evaluations:
        state, new = strategy.ask(state, min(window - len(waiting), evaluations - state.asked))
        asked += new
        waiting += new
        assert waiting, strategy.exhausted(state)
        verdict = judge(candidate := waiting.pop(0), "search")
        failed = isinstance(verdict, str)
        told = Evaluated(candidate, failure=verdict) if failed else Evaluated(candidate, verdict)
        state = strategy.tell(state, told)
    return state, asked


class TestThreeStages(StrategyContract):
    budget = 27

    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return chain(Stage(RANDOM, 8), Stage(CMA, 9), Stage(M2N2), problem=problem)


class TestAStageWithinAStage(StrategyContract):
    budget = 26
    window = 3

    def make(self, problem: Problem) -> Strategy[Any]:
        inner = Choice("stages", StagesSettings((Stage(RANDOM, 5, join_pool=True), Stage(CMA, 6))))
        return chain(Stage(inner, 13), Stage(RANDOM, 2), Stage(M2N2), problem=problem)


def test_numbers_go_on_and_each_stage_spends_its_own() -> None:
    _, asked = go(chain(Stage(RANDOM, 5), Stage(CMA, 4), Stage(RANDOM)), 14)
    assert [one.number for one in asked] == list(range(14))
    assert [one.origin for one in asked] == ["seed"] * 3 + ["random"] * 2 + ["cma"] * 4 + ["seed"] * 3 + ["random"] * 2


def test_a_stage_waits_for_every_result_of_the_one_before() -> None:
    strategy = chain(Stage(RANDOM, 2), Stage(RANDOM))
    state, asked = strategy.ask(strategy.start(), 9)
    assert len(asked) == 2
    state = strategy.tell(state, scored(asked[1]))
    assert strategy.ask(state, 9) == (state, ())
    _, more = strategy.ask(strategy.tell(state, scored(asked[0])), 9)
    assert [one.number for one in more] == list(range(2, 11))


def test_every_stage_draws_other_numbers() -> None:
    _, asked = go(chain(Stage(RANDOM, 6), Stage(RANDOM, 6)), 12)
    drawn = [one.recipe.digest for one in asked if one.origin == "random"]
    assert len(set(drawn)) == len(drawn)


def test_a_stage_that_is_exhausted_gives_way_to_the_next() -> None:
    _, asked = go(chain(probing(limit=2), Stage(RANDOM)), 6)
    assert [one.origin for one in asked] == ["", "", "seed", "seed", "seed", "random"]


def test_the_last_stage_ends_the_search_and_says_why() -> None:
    strategy = chain(probing(2), probing(limit=3))
    state, _ = go(strategy, 5)
    assert strategy.ask(state, 4) == (state, ())
    assert strategy.exhausted(state) == "enough"
    spent = chain(probing(2))
    assert spent.exhausted(go(spent, 2)[0]) == "stage 1 has spent its evaluations"


def test_seeds_are_the_best_of_all_stages() -> None:
    strategy = chain(Stage(RANDOM, 5), Stage(RANDOM, 5), Stage(CMA))
    state, asked = go(strategy, 11)
    gains = {one.number: judge(one, "search")["accuracy"] for one in asked[:10]}  # type: ignore[index]
    best = sorted(gains, key=lambda number: -gains[number])[:3]
    assert {number for number, _ in state.begun.seeds} <= {n for n in gains if gains[n] >= gains[best[-1]]}
    assert gains[state.begun.seeds[0][0]] == gains[best[0]]
    given = strategy._at(state.begun)._problem.seeds  # type: ignore[attr-defined]
    assert [recipe.digest for recipe in given] == [asked[number].recipe.digest for number, _ in state.begun.seeds]


def test_m2n2_begins_from_the_members_and_what_was_found_with_a_lineage() -> None:
    _, asked = go(chain(Stage(RANDOM, 6), Stage(M2N2)), 16)
    first = asked[6:]
    members = {one.recipe.digest for one in pool_seeds(PROBLEM)}
    assert {one.recipe.digest for one in first[:3]} == members
    found = [one for one in first if one.origin == "seed" and one.recipe.digest not in members]
    assert found
    for one in found:
        (parent,) = one.parents
        assert asked[parent].recipe == one.recipe
        assert one.generation > asked[parent].generation
    digests = {one.recipe.digest: one.number for one in asked}
    for child in (one for one in first if one.origin == "crossover"):
        assert all(ancestor in digests for ancestor in child.recipe.ancestors)
        assert all(asked[parent].generation < child.generation for parent in child.parents)


def test_what_a_generation_was_drawn_around_is_its_parent() -> None:
    _, asked = go(chain(Stage(RANDOM, 6), Stage(CMA)), 14)
    found = max(asked[:6], key=lambda one: judge(one, "search")["accuracy"])  # type: ignore[index]
    alike = replace(CMA.settings, space=WeightSpace())
    _, asked = go(chain(Stage(RANDOM, 6), Stage(Choice("cma", alike))), 14)
    assert [one.parents for one in asked[6:10]] == [(found.number,)] * 4
    assert [one.parents for one in asked[10:]] == [()] * 4


def test_a_seed_outside_the_box_is_taken_from_its_edge() -> None:
    far = WeightSpace(bounded=False).decode(PROBLEM, [1.7, -0.4, 0.5, 0.5, 2.0, 0.1])
    strategy = chain(Stage(Choice("cma", CMAESSettings())), problem=replace(PROBLEM, seeds=(far,)))
    _, asked = go(strategy, 30)
    values = np.array([s.values for one in asked if one.origin == "cma" for s in one.recipe.segments])
    assert values.min() >= 0
    assert values.max() <= 1


@pytest.mark.parametrize(("inner", "whole"), [(RANDOM, False), (M2N2, True)])
def test_a_chain_needs_whole_scores_if_a_stage_does(inner: Choice, whole: bool) -> None:
    assert chain(Stage(CMA, 5), Stage(inner)).needs_whole == whole


def test_finalists_are_those_of_all_stages_best_first() -> None:
    strategy = chain(Stage(RANDOM, 9), Stage(RANDOM, 9))
    state, asked = go(strategy, 18)
    values = [judge(asked[number], "search")["accuracy"] for number in strategy.finalists(state)]  # type: ignore[index]
    assert values == sorted(values, reverse=True)
    assert {number < 9 for number in strategy.finalists(state)} == {True, False}


def test_the_population_is_the_last_stages_until_the_first_result() -> None:
    strategy = chain(probing(2), probing())
    state, _ = go(strategy, 2)
    state, asked = strategy.ask(state, 1)
    assert strategy.population(state) == (0, 1)
    assert strategy.population(strategy.tell(state, scored(asked[0]))) == (2,)


def test_a_pool_that_a_stage_narrows_stays_narrow() -> None:
    _, asked = go(chain(probing(1, leaves=("low", "odd")), probing(1, leaves=("low",)), Stage(RANDOM)), 8)
    sources = [one.recipe.sources for one in asked]
    assert sources[0] == sources[1] == (f"{MEMBER}odd",)
    assert set(sources[2:]) == {(f"{MEMBER}low",)}


def test_slopes_are_those_towards_the_stages_members() -> None:
    problem = replace(PROBLEM, slopes=True)
    strategy = chain(probing(1, leaves=("low", "odd")), probing(request=Request(slopes=True)), problem=problem)
    state, _ = go(strategy, 1)
    state, asked = strategy.ask(state, 1)
    assert asked[0].request.slopes
    table = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])  # low, high, odd, origin
    state = strategy.tell(state, scored(asked[0], slopes=table))
    assert state.inner.slopes == ((1.0, 3.0, 4.0),)


def test_a_product_joins_the_pool_as_the_recipe_that_it_is() -> None:
    strategy = chain(Stage(RANDOM, 5, join_pool=True), Stage(CMA, 5), Stage(M2N2))
    _, asked = go(strategy, 16)
    best = max(asked[:5], key=lambda one: judge(one, "search")["accuracy"])  # type: ignore[index]
    members = tuple(MEMBER + name for name in PROBLEM.members)
    for one in asked[5:10]:
        assert one.recipe.sources == (*members, ANCESTOR + best.recipe.digest)
    assert [one.recipe.sources for one in asked[10:14]] == [(one,) for one in (*members, ANCESTOR + best.recipe.digest)]
    for child in asked[10:]:
        assert all(MEMBER + "stage1" not in source for source in child.recipe.sources)


def test_an_evaluation_on_some_items_counts_as_its_share() -> None:
    part = Request(ranges=((0, 8),))  # of 24
    state, asked = go(chain(probing(2, request=part), Stage(RANDOM)), 9)
    assert [one.request for one in asked].count(part) == 4  # the fifth might have been a whole one
    assert state.begun.at == 1


def test_states_of_a_study_read_back_in_a_fresh_process() -> None:
    strategy = chain(Stage(RANDOM, 4), Stage(CMA))
    state, _ = go(strategy, 7)
    fresh = chain(Stage(RANDOM, 4), Stage(CMA))
    loaded: Any = codec.load(fresh.State, codec.dump(state))
    assert codec.equal(fresh.ask(loaded, 3)[0], strategy.ask(state, 3)[0])


@pytest.mark.parametrize(
    ("stages", "problem", "why"),
    [
        ((Stage(M2N2),), replace(PROBLEM, items=0), r"stage 1 \(m2n2\): .* score for each item"),
        ((Stage(RANDOM, 3), Stage(M2N2)), replace(PROBLEM, members=("low",)), r"stage 2 \(m2n2\): .* at least 2 pool"),
        ((probing(1, leaves=("low",)), Stage(M2N2)), PROBLEM, r"stage 2 \(m2n2\): .* at least 2 pool"),
        (
            (Stage(RANDOM, 3), Stage(Choice("random", RandomSearchSettings(WeightSpace(low=2.0))))),
            PROBLEM,
            r"stage 2 \(random\): space.low = 2.0 is not below",
        ),
    ],
)
def test_a_stage_that_cannot_work_is_refused_before_the_first_evaluation(
    stages: tuple[Stage, ...], problem: Problem, why: str
) -> None:
    with pytest.raises(StrategyError, match=why):
        chain(*stages, problem=problem)


def test_a_stage_that_cannot_begin_with_what_is_left_ends_the_search() -> None:
    class Fickle(Probe):
        def members(self, state: ProbeState) -> tuple[str, ...] | None:
            return ("low",) if state.told else None

    strategy = chain(probing(2), Stage(M2N2))
    strategy._running = (strategy._first, Fickle(ProbeSettings(), PROBLEM))
    state, asked = strategy.ask(strategy.start(), 2)
    for one in asked:
        state = strategy.tell(state, scored(one))
    assert strategy.ask(state, 1) == (state, ())
    assert "stage 2 (m2n2): " in (strategy.exhausted(state) or "")


def test_all_failed_stages_hand_on_nothing_and_the_search_goes_on() -> None:
    strategy = chain(Stage(RANDOM, 4, join_pool=True), Stage(RANDOM))
    state, asked = strategy.ask(strategy.start(), 4)
    for one in asked:
        state = strategy.tell(state, Evaluated(one, failure="made to fail"))
    assert strategy.finalists(state) == ()
    state, asked = strategy.ask(state, 3)
    assert [one.number for one in asked] == [4, 5, 6]
    assert state.begun.seeds == ()
    assert [one.recipe for one in asked] == [one.recipe for one in pool_seeds(PROBLEM)]


def test_a_recipe_of_another_operator_is_no_obstacle() -> None:
    odd = Recipe("slerp", (f"{MEMBER}low", f"{MEMBER}high"), member_recipe(PROBLEM, "low").segments)
    strategy = chain(Stage(CMA), problem=replace(PROBLEM, seeds=(odd,)))
    assert len(strategy.ask(strategy.start(), 4)[1]) == 4
