"""The genetic algorithm: what it finds, who survives, what is refused, and its contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.store.port import Store
from evomerge.strategy import Problem, Strategy
from evomerge.testing.landscape import MIXED, problem, search, sphere, weights
from evomerge.testing.strategy import StrategyContract
from evomerge_strategies.ga import GA, GASettings, GAState

BOTH = pytest.mark.parametrize("replacement", ["generational", "steady_state"])


def made(members: int = 4, **settings: Any) -> GA:
    return GA(GASettings(**({"score_members": False} | settings)), problem(members))


def told(strategy: GA, state: GAState, losses: list[float | None]) -> GAState:
    """As many candidates as losses, told in the order asked."""
    state, asked = strategy.ask(state, len(losses))
    for candidate, loss in zip(asked, losses, strict=True):
        score = None if loss is None else Score((("loss", loss),))
        state = strategy.tell(state, Evaluated(candidate, score, None if score else "broken"))
    return state


@BOTH
def test_it_finds_the_bottom_of_a_sphere(replacement: Any) -> None:
    state, _ = search(made(5, replacement=replacement), sphere, 1000)
    assert state.hall[0][0] < 1e-3


@BOTH
def test_numbers_by_factors_and_whole_numbers_stay_what_they_are(replacement: Any) -> None:
    _, seen = search(made(2, space=MIXED, replacement=replacement), lambda x: float(x.sum()), 80)
    values = np.array([weights(candidate) for candidate in seen])
    low, high = np.array([0, 0, 1e-4, 1]), np.array([1, 1, 1, 9])
    assert (values >= low).all()
    assert (values <= high).all()
    assert set(values[:, 3]) <= set(range(1, 10))


@BOTH
@pytest.mark.parametrize("loss", [1.0, None], ids=["constant", "failing"])
def test_constant_scores_and_failures_only_are_survived(replacement: Any, loss: float | None) -> None:
    state, seen = search(made(replacement=replacement), lambda _: loss, 90)
    assert len({candidate.recipe.digest for candidate in seen}) == 90
    assert len(state.population) == (0 if loss is None else 20)


def test_no_candidate_is_proposed_twice_while_there_are_others_and_few_points_do_not_stop_it() -> None:
    space = OperatorSpace("operator", "mixed", fixed={"weight": 0.5, "rate": 0.1})
    state, seen = search(made(1, space=space, popsize=4), lambda x: abs(x[-1] - 7), 40)
    assert len({candidate.recipe.digest for candidate in seen[:4]}) == 4
    assert len(seen) == 40
    assert state.hall[0][0] == 0


def test_the_elite_survives_a_generation_of_worse_children_and_nobody_else_does() -> None:
    strategy = made(popsize=4, elite=1)
    state = told(strategy, strategy.start(), [3.0, 1.0, 2.0, 4.0])
    assert strategy.population(state) == (1, 2, 0, 3)
    state = told(strategy, state, [9.0, 8.0, 7.0])
    assert strategy.population(state) == (1, 6, 5, 4)


def test_places_of_failed_children_are_kept_by_their_elders() -> None:
    strategy = made(popsize=4, elite=1)
    state = told(strategy, strategy.start(), [3.0, 1.0, 2.0, 4.0])
    state = told(strategy, state, [None, 8.0, None])
    assert strategy.population(state) == (1, 2, 0, 5)


def test_in_a_steady_state_a_child_replaces_the_worst_if_it_is_better() -> None:
    strategy = made(popsize=3, replacement="steady_state")
    state = told(strategy, strategy.start(), [3.0, 1.0, 2.0])
    state = told(strategy, state, [2.5])
    assert strategy.population(state) == (1, 2, 3)
    assert strategy.population(told(strategy, state, [2.5])) == (1, 2, 3)


def test_a_generation_waits_for_all_of_the_last_one() -> None:
    strategy = made(popsize=4)
    state, asked = strategy.ask(strategy.start(), 9)
    assert len(asked) == 4
    assert strategy.ask(state, 1)[1] == ()


def test_parents_are_better_than_the_population_they_are_drawn_from() -> None:
    strategy = made(popsize=20, tournament=3, replacement="steady_state")
    state, _ = search(strategy, sphere, 20, room=20)
    _, children = strategy.ask(state, 200)
    rank = {number: at for at, number in enumerate(strategy.population(state))}
    ranks = [rank[parent] for child in children for parent in child.parents]
    assert np.mean(ranks) < 7  # the least of three drawn from 0..19 is 4.5 on average


def test_members_that_the_space_can_express_are_in_the_first_population() -> None:
    strategy = made(3, popsize=5, score_members=True)
    state, seen = search(strategy, sphere, 5)
    assert [candidate.origin for candidate in seen] == ["seed", "seed", "seed", "random", "random"]
    assert {0, 1, 2} <= set(strategy.population(state))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elite": 20}, "leaves no child in a popsize of 20"),
        ({"space": WeightSpace(low=1.0, high=0.0)}, "not below"),
        (
            {"space": OperatorSpace("operator", "mixed", fixed={"weight": 1, "rate": 1, "count": 1})},
            "nothing to search",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_evaluated(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        made(**settings)


class TestGA(StrategyContract):
    @pytest.fixture
    def store(self, every_store: Store) -> Store:
        return every_store

    def make(self, problem: Problem) -> Strategy[Any]:
        return GA(GASettings(popsize=6), problem)


class TestSteadyStateGA(StrategyContract):
    window = 5

    def make(self, problem: Problem) -> Strategy[Any]:
        space = WeightSpace("simplex", per_group=False)
        return GA(GASettings(space, "steady_state", popsize=6, score_members=False), problem)
