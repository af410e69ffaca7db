from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evomerge import config
from evomerge.candidate import Candidate, Evaluated, Recipe, Request, Score, Segment
from evomerge.history import History, plot_history, read_history
from evomerge.history.archive import Archive
from evomerge.store.memory import MemoryStore
from evomerge.store.port import Change, StudyRecord, StudyStore, Turn
from evomerge.strategy import Objective, Problem

ROWS = np.random.default_rng(0).random((40, 12)) < 0.4


def candidate(number: int) -> Candidate:
    return Candidate(number, Recipe("linear", ("pool:a",), (Segment("all", 0, 1, (1.0 + number,)),)))


def evaluated(number: int, items: bool = True) -> Evaluated:
    if number % 9 == 4:
        return Evaluated(candidate(number), None, "ValueError: no")
    row = ROWS[number]
    return Evaluated(candidate(number), Score((("accuracy", float(row.mean())),), row if items else None))


def study(size: int, *, items: bool = True, population: bool = True, direction: str = "maximize") -> StudyStore:
    """Slot ``number % 5`` goes to each success; candidate 3 comes back much later."""
    store = MemoryStore(f"history-{time.monotonic_ns()}")
    store.create(StudyRecord("digits", "", {}, 0, "accuracy", direction))
    opened = store.open("digits", write=True)
    opened.save_turn(Turn(0, asked=tuple(candidate(number) for number in range(size))))
    for number in range(size):
        one = evaluated(number, items)
        changes: tuple[Change, ...] = (Change(number % 5, number),) if population and one.score is not None else ()
        if population and number == 20:
            changes += (Change(4, 3), Change(3, None))
        opened.save_turn(Turn(number + 1, told=(one,), changes=changes))
    opened.release()
    return store.open("digits")


def test_best_so_far_passes_over_failures() -> None:
    history = read_history(study(12))
    means = [ROWS[number].mean() if number % 9 != 4 else np.nan for number in range(12)]
    assert np.array_equal(history.values, means, equal_nan=True)
    assert np.array_equal(history.best, [np.nanmax(means[: n + 1]) for n in range(12)])
    assert (history.name, history.objective) == ("digits", "accuracy")


def test_a_candidate_in_rounds_counts_when_it_has_seen_all_items() -> None:
    store = MemoryStore(f"history-{time.monotonic_ns()}")
    problem = Problem(0, ("a",), (), (Objective("accuracy"),), items=12)
    settings = {"problem": config.canonical_text(problem)}
    store.create(StudyRecord("digits", "", settings, 0, "accuracy", "maximize"))
    opened = store.open("digits", write=True)
    rounds = [(0, (0, 4)), (1, (0, 4)), (0, (4, 12)), (2, (0, 4))]
    for number, (whose, places) in enumerate(rounds):
        one = replace(candidate(whose), number=number, request=Request((places,)))
        row = ROWS[whose, slice(*places)]
        result = Evaluated(one, Score((("accuracy", float(row.mean())),), row))
        opened.save_turn(Turn(2 * number, asked=(one,)))
        opened.save_turn(Turn(2 * number + 1, told=(result,), changes=(Change(0, number),)))
    history = read_history(opened)
    assert np.isnan(history.values[[0, 1, 3]]).all()
    assert history.values[2] == history.best[3] == pytest.approx(ROWS[0].mean())
    assert history.coverage.size == 0
    opened.release()


def test_less_can_be_better() -> None:
    history = read_history(study(12, direction="minimize"))
    assert history.best[-1] == np.nanmin(history.values)


def test_diversity_is_that_of_the_population_of_the_moment() -> None:
    history = read_history(study(40))
    slots: dict[int, int] = {}
    for number in range(40):
        if number % 9 != 4:
            slots[number % 5] = number
        if number == 20:
            slots[4] = 3
            del slots[3]
        rows = ROWS[sorted(slots.values())]
        share = rows.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = -np.nan_to_num(share * np.log2(share)) - np.nan_to_num((1 - share) * np.log2(1 - share))
        niches = [sum(row[j] / rows[:, j].sum() for j in range(12) if row[j]) / 12 for row in rows]
        assert history.at[number] == number + 1
        assert history.filled[number] == len(rows)
        assert history.coverage[number] == pytest.approx(rows.any(axis=0).mean())
        assert history.entropy[number] == pytest.approx(bits.mean())
        assert history.niche_min[number] == pytest.approx(min(niches))
        assert history.niche_max[number] == pytest.approx(max(niches))


def test_few_points_end_with_the_last() -> None:
    history = read_history(study(40), points=6)
    assert list(history.at) == [6, 12, 18, 24, 30, 36, 40]
    assert history.values.size == 40


def test_an_empty_archive_has_no_diversity() -> None:
    archive = Archive()
    assert archive.diversity() is None
    archive.put(0, np.zeros(3))
    nobody = archive.diversity()
    assert nobody is not None
    assert (nobody.coverage, nobody.entropy, nobody.niche_max) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("size", "items", "population"), [(0, True, True), (10, False, True), (10, True, False)])
def test_what_is_not_there_is_left_out(tmp_path: Path, size: int, items: bool, population: bool) -> None:
    history = read_history(study(size, items=items, population=population))
    assert history.values.size == size
    assert history.at.size == 0
    plot_history(tmp_path / "history.png", {"digits": [history]})
    assert (tmp_path / "history.png").stat().st_size > 0


def test_draws_one_run_and_many(tmp_path: Path) -> None:
    runs: list[History] = [read_history(study(size)) for size in (30, 40, 25)]
    for name, groups in {"one.svg": {"m2n2": runs[:1]}, "many.png": {"m2n2": runs, "random": runs[:2]}}.items():
        plot_history(tmp_path / name, groups, title="digits")
        assert (tmp_path / name).stat().st_size > 1000


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no history"):
        plot_history(tmp_path / "history.png", {})
