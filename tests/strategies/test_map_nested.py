from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Evaluated, Score
from evomerge.errors import StrategyError
from evomerge.pareto import dominance
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.strategy import Objective
from evomerge_strategies.map_nested import NestedMAP, NestedMAPSettings
from tests.strategies.fronts import drive, problem, weights

Floats = NDArray[np.float64]


def objectives(count: int) -> tuple[Objective, ...]:
    return tuple(Objective(f"task{i}") for i in range(count))


def tasks(x: Floats) -> Floats:
    """Task i wants 0.6 of expert i and is disturbed a little by the others; experts differ in quality."""
    others = x.sum() - x
    return np.asarray(1.0 - 0.1 * np.arange(len(x)) - (x - 0.6) ** 2 - 0.05 * others**2)


def nested(members: int, **given: Any) -> NestedMAP:
    small = {"surrogate_population": 40, "surrogate_generations": 20}
    return NestedMAP(NestedMAPSettings(**small | given), problem(members, objectives(members)))


@pytest.mark.parametrize(("members", "rounds"), [(2, 1), (3, 2), (4, 2), (5, 3), (8, 3)])
def test_n_experts_take_twenty_samples_for_each_of_n_minus_one_pairs(members: int, rounds: int) -> None:
    known = problem(members, objectives(members))
    strategy = nested(members, rounds=1)
    state, candidates, _ = drive(strategy, known, tasks, 1000)
    origins = [one.origin for one in candidates]
    assert origins.count("seed") == members
    assert origins.count("pair") == 20 * (members - 1)
    assert 0 < origins.count("front") <= 5
    assert strategy.exhausted(state) == "all 1 rounds are verified"
    assert max(one.generation for one in candidates if one.origin == "pair") == rounds
    assert strategy.diagnostics(state)["round"] == rounds


def test_the_closest_experts_are_paired_first() -> None:
    known = problem(4, objectives(4))
    _, candidates, _ = drive(nested(4, rounds=1), known, tasks, 1000)
    first = [weights(one, known) for one in candidates if one.origin == "pair" and one.generation == 1]
    pairs = {tuple(np.flatnonzero(x).tolist()) for x in first}
    assert pairs == {(0, 1), (2, 3)}  # their own tasks' scores fall from 0 to 3
    second = [weights(one, known) for one in candidates if one.origin == "pair" and one.generation == 2]
    assert all((x != 0).all() for x in second)


def test_merges_of_merges_beat_every_expert_on_all_tasks_together() -> None:
    known = problem(6, objectives(6))
    state, candidates, values = drive(nested(6), known, tasks, 140)
    best = values.sum(axis=1).max()
    ideal = max(tasks(np.full(6, c)).sum() for c in np.linspace(0, 1, 101))
    assert values[:6].sum(axis=1).max() < best - 0.5
    assert best > ideal - 0.1
    numbers = [number for number, _ in state.front]
    assert not dominance(values[numbers]).any()
    assert any(candidates[number].origin == "front" for number in numbers)


def test_permuting_experts_and_tasks_permutes_the_planes() -> None:
    order = np.array([2, 0, 3, 1])
    known = problem(4, objectives(4))
    _, here, _ = drive(nested(4, rounds=1), known, tasks, 64)
    back = np.argsort(order)
    _, there, _ = drive(nested(4, rounds=1), known, lambda x: tasks(x[back])[order], 64)
    pairs = [
        {tuple(np.flatnonzero(weights(one, known)).tolist()) for one in run if one.generation == 1}
        for run in (here, there)
    ]
    assert {tuple(sorted(int(order[at]) for at in pair)) for pair in pairs[1]} == pairs[0]


def test_preference_pulls_a_pairs_point() -> None:
    known = problem(3, objectives(3))

    def ratio(**preference: float) -> float:
        _, candidates, _ = drive(nested(3, preference=preference, rounds=1), known, rivals, 60)
        last = [weights(one, known) for one in candidates if one.generation == 2 and one.origin == "pair"]
        return float(last[0][1] / last[0][0])

    def rivals(x: Floats) -> Floats:
        return np.array([1.0 - (x[0] - 0.7) ** 2 - x[1], 1.0 - (x[1] - 0.7) ** 2 - x[0], 5.0 + x[2]])

    assert ratio(task0=5.0) < 0.5 * ratio(task1=5.0)


def test_failed_samples_are_made_up_for() -> None:
    known = problem(3, objectives(3))
    strategy = nested(3)
    state, seen = strategy.start(), []
    while state.told < 90:
        state, asked = strategy.ask(state, 90 - state.told)
        for candidate in asked:
            x = weights(candidate, known)
            seen.append(candidate)
            values = tuple(zip((one.name for one in known.objectives), tasks(x).tolist(), strict=True))
            verdict: dict[str, Any] = {"failure": "no"} if np.sort(x)[-2] > 0.3 else {"score": Score(values)}
            state = strategy.tell(state, Evaluated(candidate, **verdict))
    assert any(one.origin == "front" for one in seen)


def test_without_two_scored_members_there_is_no_pair() -> None:
    strategy = nested(3)
    state = strategy.start()
    state, asked = strategy.ask(state, 3)
    for candidate in asked:
        state = strategy.tell(state, Evaluated(candidate, failure="no"))
    assert strategy.ask(state, 5)[1] == ()
    assert strategy.exhausted(state) == "fewer than two members could be scored"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": WeightSpace("task_arithmetic")}, "weights of whole members"),
        ({"space": WeightSpace("simplex", per_group=False)}, "weights of whole members"),
        ({"space": OperatorSpace("operator", "ties")}, "weights of whole members"),
        ({"preference": {"task9": 1.0}}, "preference names 'task9'"),
        ({"objectives": ("task0",)}, "compromises between objectives"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(StrategyError, match=words):
        nested(3, **given)


def test_one_member_is_too_few() -> None:
    with pytest.raises(StrategyError, match="at least 2 pool members"):
        NestedMAP(NestedMAPSettings(), problem(1, objectives(2)))
