"""The front of a stored study, and its picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe, Request, Score, Segment
from evomerge.history import plot_front, read_front
from evomerge.pareto import dominance, hypervolume
from evomerge.store.memory import MemoryStore
from evomerge.store.port import StudyRecord, StudyStore, Turn
from evomerge.strategy import Objective

OBJECTIVES = (Objective("accuracy"), Objective("loss", "minimize"))
VALUES = np.random.default_rng(3).random((60, 3)).round(2)


def candidate(number: int, member: bool) -> Candidate:
    sources = ("pool:a",) if member else ("pool:a", "pool:b")
    values = (1.0,) if member else (0.5, float(number))
    return Candidate(number, Recipe("linear", sources, (Segment("all", 0, 1, values),)))


def study(values: NDArray[np.float64], members: int, parts: tuple[int, ...] = ()) -> StudyStore:
    """Every seventh fails; ``parts`` were scored on some items only."""
    store = MemoryStore(uuid4().hex)
    store.create(StudyRecord("s", "", {}, 0, "accuracy", "maximize"))
    opened = store.open("s", write=True)
    names = [one.name for one in OBJECTIVES] + ["third"]
    asked, told = [], []
    for number, row in enumerate(values.tolist()):
        one = candidate(number, number < members)
        if number in parts:
            one = replace(one, request=Request(((0, 1),)))
        failed = number % 7 == 6
        score = None if failed else Score(tuple(zip(names, row, strict=False)))
        asked.append(one)
        told.append(Evaluated(one, score, "no" if failed else None))
    opened.save_turn(Turn(0, asked=tuple(asked)))
    opened.save_turn(Turn(1, told=tuple(told)))
    opened.release()
    return store.open("s")


def test_the_front_is_what_nobody_beats_best_on_the_main_objective_first() -> None:
    found = read_front(study(VALUES, 2), OBJECTIVES)
    assert found is not None
    scored = [number for number in range(60) if number % 7 != 6]
    gains = VALUES[:, :2] * [1.0, -1.0]
    beaten = dominance(gains[scored]).any(axis=0)
    assert set(found.numbers) == {number for number, lost in zip(scored, beaten, strict=True) if not lost}
    assert np.array_equal(found.values, VALUES[list(found.numbers), :2])
    assert len(found.others) == len(scored) - len(found.numbers)
    assert (np.diff(found.values[:, 0]) <= 0).all()


def test_volume_is_measured_from_the_worst_of_the_pools_members() -> None:
    found = read_front(study(VALUES, 3), OBJECTIVES)
    assert found is not None
    assert found.of_members
    assert list(found.reference) == [VALUES[:3, 0].min(), VALUES[:3, 1].max()]
    signs = np.array([1.0, -1.0])
    assert found.volume == pytest.approx(hypervolume(VALUES[[n for n in range(60) if n % 7 != 6], :2] * signs,
                                                     found.reference * signs))  # fmt: skip


def test_without_scored_members_the_worst_of_all_is_the_reference() -> None:
    found = read_front(study(VALUES[:5], 0), OBJECTIVES)
    assert found is not None
    assert not found.of_members
    assert list(found.reference) == [VALUES[:5, 0].min(), VALUES[:5, 1].max()]


def test_scores_of_some_items_are_no_part_of_it() -> None:
    whole = read_front(study(VALUES, 2), OBJECTIVES)
    assert whole is not None
    best = whole.numbers[0]
    without = read_front(study(VALUES, 2, parts=(best,)), OBJECTIVES)
    assert without is not None
    assert best not in without.numbers
    assert len(without.others) + len(without.numbers) == len(whole.others) + len(whole.numbers) - 1


def test_a_study_without_scores_has_no_front() -> None:
    assert read_front(study(VALUES[:0], 0), OBJECTIVES) is None


@pytest.mark.parametrize("objectives", [2, 3])
def test_its_picture_names_every_objective(tmp_path: Path, objectives: int) -> None:
    found = read_front(study(VALUES, 2), (*OBJECTIVES, Objective("third"))[:objectives])
    assert found is not None
    plot_front(tmp_path / "front.svg", found, title="my study")
    drawn = (tmp_path / "front.svg").read_text()
    for text in ("accuracy (higher is better)", "loss (lower is better)", "my study"):
        assert f"<!-- {text} -->" in drawn
    assert ("<!-- third (higher is better) -->" in drawn) == (objectives == 3)
