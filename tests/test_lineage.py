from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import ANCESTOR, Candidate, Evaluated, Recipe, Score, Segment
from evomerge.errors import RecipeError, StoreError
from evomerge.lineage import Family, Relative, ancestry, contributions, draw, trace, tree_text
from evomerge.lineage.layout import arrange
from evomerge.store.memory import MemoryStore
from evomerge.store.port import StudyRecord, StudyStore, Turn


def dag(parents: list[tuple[int, ...]]) -> list[Candidate]:
    """Candidates with these parents; those without any are pool members."""
    candidates: list[Candidate] = []
    for number, ups in enumerate(parents):
        sources = tuple(ANCESTOR + candidates[up].recipe.digest for up in ups) or (f"pool:m{number}",)
        recipe = Recipe("linear", sources, (Segment("all", 0, 1, (1.0 + number,) * len(sources)),))
        generation = 1 + max((candidates[up].generation for up in ups), default=-1)
        candidates.append(Candidate(number, recipe, ups, generation, "cross" if ups else "seed"))
    return candidates


def chosen(size: int, seed: int = 0, recent: int = 20) -> list[tuple[int, ...]]:
    """Two parents each, among the most recent ones; three seeds."""
    rng = np.random.default_rng(seed)
    draw_two = (tuple(int(max(0, n - 1 - back)) for back in rng.integers(0, recent, 2)) for n in range(3, size))
    return [(), (), (), *draw_two]


def lookup(candidates: Iterable[Candidate]) -> dict[str, Recipe]:
    return {candidate.recipe.digest: candidate.recipe for candidate in candidates}


def find(known: dict[str, Recipe], digests: Iterable[str]) -> dict[str, Recipe]:
    return {digest: known[digest] for digest in digests if digest in known}


def stored(candidates: list[Candidate], failed: frozenset[int] = frozenset()) -> StudyStore:
    store = MemoryStore(f"lineage-{time.monotonic_ns()}")
    store.create(StudyRecord("study", "", {}, 0, "accuracy", "maximize"))
    study = store.open("study", write=True)
    told = tuple(
        Evaluated(c, None, "ValueError: no")
        if c.number in failed
        else Evaluated(c, Score((("accuracy", c.number / 8),)))
        for c in candidates
    )
    study.save_turn(Turn(0, asked=tuple(candidates)))
    study.save_turn(Turn(1, told=told))
    study.release()
    return store.open("study")


# --- recipes ---------------------------------------------------------------------------------------------------------


@given(st.integers(4, 60), st.integers(0, 1000), st.integers(1, 30), st.data())
def test_ancestry_is_complete_and_oldest_first(size: int, seed: int, recent: int, data: st.DataObject) -> None:
    candidates = dag(chosen(size, seed, recent))
    known = lookup(candidates)
    cached = frozenset(c.recipe.digest for c in candidates if data.draw(st.booleans()))
    have = set(cached)
    for recipe in ancestry(candidates[-1].recipe, cached, lambda digests: find(known, digests)):
        assert recipe.digest not in have
        assert set(recipe.ancestors) <= have
        have.add(recipe.digest)
    assert set(candidates[-1].recipe.ancestors) <= have


def test_ancestry_asks_once_a_level_and_only_for_what_is_wanted() -> None:
    candidates = dag([(), (), (0, 1), (2, 0), (3, 2)])
    known = lookup(candidates)
    asked: list[list[str]] = []

    def count(digests: Iterable[str]) -> dict[str, Recipe]:
        asked.append(list(digests))
        return find(known, asked[-1])

    digest = {c.recipe.digest: c.number for c in candidates}
    got = ancestry(candidates[4].recipe, frozenset([candidates[2].recipe.digest]), count)
    assert [digest[recipe.digest] for recipe in got] == [0, 3]
    assert [[digest[d] for d in level] for level in asked] == [[3], [0]]


def test_an_unknown_ancestor_is_named() -> None:
    candidates = dag([(), (), (0, 1)])
    with pytest.raises(RecipeError, match=candidates[0].recipe.digest):
        ancestry(candidates[2].recipe, frozenset(), lambda digests: {})


@pytest.mark.parametrize("recent", [1, 40])
def test_fifty_thousand_ancestors(recent: int) -> None:
    candidates = dag(chosen(50_000, recent=recent))
    known = lookup(candidates)
    recipes = ancestry(candidates[-1].recipe, frozenset(), lambda digests: find(known, digests))
    assert len(recipes) > 40_000


# --- candidates ------------------------------------------------------------------------------------------------------


def test_trace_goes_back_to_the_pool() -> None:
    family = trace(stored(dag([(), (), (), (0, 1), (3, 0), (3, 3)]), frozenset([3])), 4)
    assert list(family.relatives) == [4, 3, 0, 1]
    assert family.relatives[4].value == 0.5
    assert family.relatives[3].value is None
    assert family.relatives[0].members == ("m0",)
    assert (family.objective, family.direction, family.beyond) == ("accuracy", "maximize", frozenset())


def test_trace_stops_at_a_depth() -> None:
    family = trace(stored(dag([(), (), (0, 1), (2, 1), (3, 2)])), 4, depth=1)
    assert sorted(family.relatives) == [2, 3, 4]
    assert family.beyond == {0, 1}


def test_trace_of_nobody_is_an_error() -> None:
    with pytest.raises(StoreError, match="7"):
        trace(stored(dag([()])), 7)


def test_tree_text_marks_what_it_showed() -> None:
    family = trace(stored(dag([(), (), (0, 1), (2, 0), (3, 2)]), frozenset([1])), 4)
    assert tree_text(family).splitlines() == [
        "#4 cross, generation 3, accuracy 0.5",
        "├─ #3 cross, generation 2, 0.375",
        "│  ├─ #2 cross, generation 1, 0.25",
        "│  │  ├─ #0 seed, generation 0, 0, from m0",
        "│  │  └─ #1 seed, generation 0, no score, from m1",
        "│  └─ #0 (above)",
        "└─ #2 (above)",
    ]


def test_tree_text_is_bounded() -> None:
    candidates = dag([(), *((number,) for number in range(30_000))])
    relatives = {c.number: Relative(c, 1.0) for c in reversed(candidates)}
    rows = tree_text(Family(30_000, relatives, "accuracy", "maximize"), lines=5).splitlines()
    assert len(rows) == 6
    assert rows[-1] == "... and 29,996 more candidates"
    cut = trace(stored(dag([(), (0,), (1,)])), 2, depth=1)
    assert "#0 (further back)" in tree_text(cut)


@given(st.integers(4, 80), st.integers(0, 1000))
def test_influence_of_the_pool_sums_to_one(size: int, seed: int) -> None:
    candidates = dag(chosen(size, seed))
    family = Family(size - 1, {c.number: Relative(c, 0.0) for c in candidates}, "accuracy", "maximize")
    influence = family.influence()
    assert sum(influence[number] for number in range(3)) == pytest.approx(1.0)


def test_contributions_are_mean_coefficients() -> None:
    table = {
        "a": (np.array([0, 2, 8]), np.array([[1.0, 0.0], [0.5, 0.5]])),
        "b": (np.array([0, 2]), np.array([[0.0, 1.0]])),
    }
    assert contributions(table, ("pool:x", "pool:y")) == pytest.approx({"x": 0.5, "y": 0.5})


# --- pictures --------------------------------------------------------------------------------------------------------


@given(st.integers(4, 120), st.integers(0, 1000), st.integers(1, 50))
def test_a_drawing_keeps_the_root_and_connects_everyone(size: int, seed: int, most: int) -> None:
    candidates = dag(chosen(size, seed))
    family = Family(size - 1, {c.number: Relative(c, 0.0) for c in candidates}, "accuracy", "maximize")
    drawing = arrange(family, most)
    drawn = {number for row in drawing.rows for number in row}
    assert drawn == set(drawing.x)
    assert size - 1 in drawn
    assert len(drawn) + drawing.left_out == size
    assert all(child in drawn and ancestor in drawn for child, ancestor, _ in drawing.lines)
    for row in drawing.rows:
        assert len({drawing.x[number] for number in row}) == len(row)


@pytest.mark.parametrize(("size", "name"), [(1, "one.svg"), (12, "small.png"), (400, "large.png"), (5000, "huge.png")])
def test_draws_a_family_of_any_size(tmp_path: Path, size: int, name: str) -> None:
    candidates = dag(chosen(size)[:size])
    values = {c.number: None if c.number % 7 == 3 else c.number / size for c in candidates}
    family = Family(size - 1, {c.number: Relative(c, values[c.number]) for c in candidates}, "accuracy", "maximize")
    draw(family, tmp_path / name)
    kind = (tmp_path / name).read_bytes()[:8]
    assert kind == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else kind.startswith(b"<?xml")
