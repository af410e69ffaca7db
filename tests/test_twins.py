"""Equal recipes asked for in the same way are evaluated once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge import twins
from evomerge.candidate import MEMBER, WHOLE, Candidate, Evaluated, Recipe, Request, Score, Segment, Split
from evomerge.runner import Plan, Runner
from evomerge.store import open_store
from evomerge.store.port import StudyRecord
from evomerge.strategy import Problem, Strategy
from evomerge.testing.strategy import PROBLEM, StrategyContract, judge
from evomerge.testing.workers import UnevenWorkers
from evomerge.twins import NOTE, Twins

HALF, AGAIN = Request(((0, 12),)), Request(replicate=1)


@dataclass(frozen=True)
class State:
    asked: int = 0
    told: int = 0
    best: tuple[float, int] | None = None


class Repeating(Strategy[State]):
    """Asks the same seven recipes over and over, every fifth of them twice in a row."""

    State = State

    def start(self) -> State:
        return State()

    def ask(self, state: State, room: int) -> tuple[State, tuple[Candidate, ...]]:
        numbers = range(state.asked, state.asked + room)
        return replace(state, asked=numbers.stop), tuple(self._candidate(number) for number in numbers)

    def _candidate(self, number: int) -> Candidate:
        kind = (number - (number % 5 == 0)) % 7
        recipe = Recipe("linear", (MEMBER + "low",), (Segment("attention", 0, 40, (kind / 7,)),))
        return Candidate(number, recipe, parents=(0,) if number else ())

    def tell(self, state: State, evaluated: Evaluated) -> State:
        best = state.best
        if evaluated.score is not None and (best is None or evaluated.score["accuracy"] > best[0]):
            best = (evaluated.score["accuracy"], evaluated.candidate.number)
        return replace(state, told=state.told + 1, best=best)

    def population(self, state: State) -> tuple[int | None, ...]:
        return ()

    def finalists(self, state: State) -> tuple[int, ...]:
        return (state.best[1],) if state.best else ()


class TestDuplicates(StrategyContract):
    """Whatever is killed whenever: the same results with the same notes."""

    def make(self, problem: Problem) -> Strategy[Any]:
        return Repeating()


@pytest.mark.parametrize("telling", ["asked", "completion"])
@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_evaluated_twice(telling: Literal["asked", "completion"], workers: int) -> None:
    seen: list[str] = []

    def counting(candidate: Candidate, split: Split) -> Score | str:
        seen.append(candidate.recipe.digest)
        return judge(candidate, split)

    with open_store(f"memory://{uuid4().hex}") as store:
        store.create(StudyRecord("s", "", {}, 7, "accuracy", "maximize"))
        study = store.open("s", write=True)
        Runner(Repeating(), study, UnevenWorkers(counting, workers), Plan(PROBLEM.objectives[0], 40, 6, telling)).run()
        results = list(study.scores("search"))
    assert len(seen) == len(set(seen)) == 7
    assert len(results) == 40
    first: dict[str, int] = {}
    for one in results:
        digest, number = one.candidate.recipe.digest, one.candidate.number
        notes = dict(one.score.notes) if one.score is not None else {}
        assert (NOTE in notes) == (digest in first and one.score is not None)
        assert one.failure == results[first.setdefault(digest, number)].failure
        if one.score is not None and number != first[digest]:
            twin = results[int(notes[NOTE].removeprefix("candidate "))]
            assert twin.candidate.number < number
            assert twin.candidate.recipe.digest == digest
            assert twin.score is not None
            assert one.score.objectives == twin.score.objectives
            assert one.cost.attempts == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([WHOLE, HALF, AGAIN])), max_size=60))
def test_the_twin_is_the_newest_equal_one_that_is_remembered(asked: list[tuple[str, Request]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "REMEMBERED", 7)
        memory = Twins()
        for number, one in enumerate(asked):
            equal = [at for at in range(max(number - 7, 0), number) if asked[at] == one]
            assert memory.add(number, *one) == (equal[-1] if equal else None)
        assert len(memory._newest) <= 8
