from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.parameter import Declaration, Parameter
from evomerge.pareto import dominance, hypervolume
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.strategy import Objective, Strategy
from evomerge_strategies.nsga2 import NSGA2, NSGA2Settings
from evomerge_strategies.nsga3 import NSGA3, NSGA3Settings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings
from tests.strategies.fronts import drive, problem

Floats = NDArray[np.float64]
COSTS = (Objective("f1", "minimize"), Objective("f2", "minimize"))
BOTH: list[Any] = [(NSGA2, NSGA2Settings), (NSGA3, NSGA3Settings)]


def zdt1(x: Floats) -> Floats:
    """Zitzler, Deb, Thiele (2000): the front is f2 = 1 - sqrt(f1), where all but the first are 0."""
    g = 1.0 + 9.0 * x[1:].mean()
    return np.array([x[0], g * (1.0 - np.sqrt(x[0] / g))])


def dtlz2(x: Floats) -> Floats:
    """Three objectives; the front is an eighth of the unit sphere."""
    a, b, g = x[0] * np.pi / 2, x[1] * np.pi / 2, ((x[2:] - 0.5) ** 2).sum()
    return (1.0 + g) * np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_zdt1_is_approached_from_end_to_end(kind: Any, settings: Any) -> None:
    known = problem(6, COSTS)
    space = WeightSpace(per_group=False)
    state, *_ = drive(kind(settings(space), known), known, zdt1, 1500)
    front = np.array([gains for _, gains in state.front])
    volume = hypervolume(front, np.array([-1.1, -1.1]))
    exact = 1.1 * 1.1 - 1.0 / 3.0  # what lies below 1 - sqrt(f1) is 1/3
    assert volume > 0.97 * exact
    assert np.ptp(front[:, 0]) > 0.9
    _, _, drawn = drive(RandomSearch(RandomSearchSettings(space), known), known, zdt1, 1500)
    assert volume > hypervolume(-drawn, np.array([-1.1, -1.1])) + 0.2


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_three_objectives_spread_over_the_sphere(kind: Any, settings: Any) -> None:
    known = problem(5, (*COSTS, Objective("f3", "minimize")))
    state, _, _ = drive(kind(settings(WeightSpace(per_group=False), popsize=28), known), known, dtlz2, 1400)
    final = state.kept.gains
    radius = np.sqrt((final**2).sum(axis=1))
    assert np.median(radius) < 1.05
    assert (final.max(axis=0) > -0.1).all()
    assert (final.min(axis=0) < -0.9).all()


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_the_front_is_mutually_non_dominated_and_best_first(kind: Any, settings: Any) -> None:
    known = problem(4, (Objective("up"), Objective("down", "minimize")))

    def trade(x: Floats) -> Floats:
        return np.array([x[0] + x[1], x[0] ** 2 + x[2]])

    strategy = kind(settings(WeightSpace(per_group=False)), known)
    state, _, values = drive(strategy, known, trade, 200)
    finalists = list(strategy.finalists(state))
    gains = values * [1.0, -1.0]
    assert not dominance(gains[finalists]).any()
    assert values[finalists[0], 0] == values[:, 0].max()
    assert (np.diff(values[finalists, 0]) <= 0).all()
    assert strategy.diagnostics(state)["front"] == len(finalists)


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_only_named_objectives_guide_the_search(kind: Any, settings: Any) -> None:
    known = problem(3, (*COSTS, Objective("noise")))

    def noisy(x: Floats) -> Floats:
        return np.array([*zdt1(x), np.sin(1e6 * x.sum())])

    def silent(x: Floats) -> Floats:
        return np.array([*zdt1(x), 0.0])

    def asked(function: Any, **more: Any) -> list[str]:
        _, candidates, _ = drive(kind(settings(WeightSpace(per_group=False), **more), known), known, function, 80)
        return [one.recipe.digest for one in candidates]

    assert asked(noisy, objectives=("f1", "f2")) == asked(silent, objectives=("f1", "f2"))
    assert asked(noisy) != asked(silent)


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_no_recipe_is_asked_twice_in_a_generation_or_again_while_it_survives(kind: Any, settings: Any) -> None:
    known = problem(3, COSTS)
    _, candidates, _ = drive(kind(settings(WeightSpace(per_group=False)), known), known, zdt1, 300)
    digests = [one.recipe.digest for one in candidates]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_children_name_their_parents(kind: Any, settings: Any) -> None:
    known = problem(3, COSTS)
    _, candidates, _ = drive(kind(settings(WeightSpace(per_group=False)), known), known, zdt1, 100)
    bred = [one for one in candidates if one.origin == "bred"]
    assert len(bred) == 80
    for one in bred:
        assert 1 <= len(one.parents) <= 2
        assert one.generation == 1 + max(candidates[parent].generation for parent in one.parents)


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_what_an_earlier_stage_found_is_bred_from(kind: Any, settings: Any) -> None:
    space = WeightSpace(per_group=False)
    known = problem(6, COSTS)
    found = space.decode(known, [0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    warm = replace(known, seeds=(found,))
    state, candidates, _ = drive(kind(settings(space), warm), warm, zdt1, 200)
    assert candidates[6].recipe == found
    assert candidates[6].parents == (-1,)
    assert any(6 in one.parents for one in candidates)
    assert 6 in [number for number, _ in state.front]


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_when_everything_fails_it_draws_on_and_has_no_finalists(kind: Any, settings: Any) -> None:
    strategy: Strategy[Any] = kind(settings(popsize=4), problem(2, COSTS))
    state = strategy.start()
    for _ in range(30):
        state, asked = strategy.ask(state, 1)
        state = strategy.tell(state, Evaluated(asked[0], failure="no"))
    assert strategy.finalists(state) == ()
    assert strategy.population(state) == (None,) * 4
    assert strategy.diagnostics(state) == {"front": 0.0, "hypervolume": 0.0}


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_equal_scores_stop_nothing(kind: Any, settings: Any) -> None:
    known = problem(2, COSTS)
    state, candidates, _ = drive(kind(settings(), known), known, lambda x: np.zeros(2), 90)
    assert len(candidates) == 90
    assert len(state.front) == 1


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_whole_numbers_are_searched_and_a_space_of_few_points_repeats_itself_at_last(kind: Any, settings: Any) -> None:
    counts = Declaration(
        "cut", (Parameter("k", 0, 4, 2, "segment", "integer"), Parameter("m", 0, 4, 2, kind="integer"))
    )
    known = replace(problem(2, COSTS), operators=(counts,))
    strategy = kind(settings(OperatorSpace("operator", "cut"), score_members=False, popsize=8), known)
    values = Counter[tuple[float, ...]]()
    state = strategy.start()
    while state.told < 60:
        state, asked = strategy.ask(state, 60 - state.told)
        for candidate in asked:
            k, m = candidate.recipe.segments[0].values
            values[k, m] += 1
            costs = (("f1", (k - 1.0) ** 2 + m), ("f2", (k - 3.0) ** 2 + m))
            state = strategy.tell(state, Evaluated(candidate, Score(costs)))
    assert values.keys() <= {(float(k), float(m)) for k in range(5) for m in range(5)}
    assert len(values) >= 15
    assert {gains for _, gains in state.front} == {(0.0, -4.0), (-1.0, -1.0), (-4.0, 0.0)}


@pytest.mark.parametrize(("kind", "settings"), BOTH)
def test_what_cannot_work_is_refused(kind: Any, settings: Any) -> None:
    with pytest.raises(StrategyError, match="compromises between objectives"):
        kind(settings(), problem(3, COSTS[:1]))
    with pytest.raises(StrategyError, match="pool members"):
        kind(settings(), problem(0, COSTS))
    with pytest.raises(StrategyError, match="not below"):
        kind(settings(WeightSpace(low=1.0, high=0.0)), problem(3, COSTS))


def test_more_directions_than_slots_are_refused() -> None:
    with pytest.raises(StrategyError, match="directions: 30 do not fit into a population of 20"):
        NSGA3(NSGA3Settings(directions=30), problem(3, COSTS))


def test_an_unbounded_space_is_left_where_that_is_better() -> None:
    known = problem(2, COSTS)

    def outside(x: Floats) -> Floats:
        return np.array([((x - 3.0) ** 2).sum(), ((x - 4.0) ** 2).sum()])

    space = WeightSpace(per_group=False, bounded=False)
    _, _, values = drive(NSGA2(NSGA2Settings(space, crossover_eta=2.0), known), known, outside, 600)
    inside = 8.0  # of the box, at (1, 1)
    assert values[:, 0].min() < inside / 3
