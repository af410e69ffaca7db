"""Whatever comes over the network is refused in words, or is a recipe that can be built."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.errors import CodecError, RecipeError
from evomerge.merge.build import Builder
from evomerge.serve.rules import Rules
from evomerge.wire import Limits, Question, dump, load

SIZE = 19210
GOOD = Recipe("linear", ("pool:low", "pool:high"), (Segment("all", 0, SIZE, (0.5, 0.5)),), (("normalize", True),))


@pytest.fixture(scope="module")
def rules(opened: Any) -> Rules:
    limits = Limits(1 << 20, segments=5, values=10, ancestors=3, evaluations=None, items=None)
    return Rules(opened.rules.pool, ("linear", "slerp", "task_arithmetic"), limits)


def segments(*cuts: int, values: tuple[float, ...] = (0.5, 0.5)) -> tuple[Segment, ...]:
    ends = (0, *cuts, SIZE)
    return tuple(Segment("all", start, stop, values) for start, stop in pairwise(ends))


BAD = {
    "operator not offered": (replace(GOOD, operator="ties"), "is not offered"),
    "operator from a module": (replace(GOOD, operator="os:system"), "is not offered"),
    "operator of many letters": (replace(GOOD, operator="x" * 10**6), "is not offered"),
    "member unknown": (replace(GOOD, sources=("pool:low", "pool:other")), "unknown source"),
    "path as member": (replace(GOOD, sources=("pool:low", "pool:../../etc/passwd")), "unknown source"),
    "digest that is none": (replace(GOOD, sources=("pool:low", "recipe:xyz")), "unknown source"),
    "no sources": (replace(GOOD, sources=(), segments=segments(values=())), "nothing to build from"),
    "a gap": (replace(GOOD, segments=(GOOD.segments[0], GOOD.segments[0])), "does not continue"),
    "too short": (replace(GOOD, segments=segments()[:0]), "the segments end at"),
    "another group": (replace(GOOD, segments=(Segment("other", 0, 5, (1.0, 1.0)),)), "does not continue"),
    "too many segments": (replace(GOOD, segments=segments(1, 2, 3, 4, 5)), "takes up to 5"),
    "too many values": (replace(GOOD, segments=segments(1, 2, values=(0.1,) * 4)), "12 values"),
    "too few values": (replace(GOOD, segments=segments(values=(1.0,))), "1 values"),
    "not a number": (replace(GOOD, segments=segments(values=(math.nan, 1.0))), "not finite"),
    "infinity": (replace(GOOD, segments=segments(values=(math.inf, 1.0))), "not finite"),
    "unknown option": (replace(GOOD, options=(("colour", 1),)), "does not take the options"),
    "long option": (replace(GOOD, options=(("normalize", "x" * 1000),)), "a text of 1000"),
    "infinite option": (replace(GOOD, options=(("normalize", math.inf),)), "is inf"),
    "negative noise": (replace(GOOD, noise=Noise(-1.0, 0, 0)), "not negative"),
    "noise that is none": (replace(GOOD, noise=Noise(math.nan, 0, 0)), "not negative"),
    "noise of a huge seed": (replace(GOOD, noise=Noise(0.1, 2**70, 0)), "whole numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_recipes_that_cannot_be_are_refused(rules: Rules, case: str) -> None:
    recipe, why = BAD[case]
    with pytest.raises(RecipeError, match=why) as caught:
        rules.check(recipe)
    assert len(str(caught.value)) < 1000


def test_a_good_recipe_passes_unchanged(rules: Rules) -> None:
    question = load(Question, dump(Question(GOOD)))
    assert rules.recipe(question) == GOOD
    assert rules.recipe(question).digest == GOOD.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ODD = JSON | st.sampled_from([SIZE, 0, -1, 1e308, 2**64, "linear", "slerp", "pool:low", "recipe:" + "0" * 32, "all"])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, item in inner for one in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else at one place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_refused_in_words_or_can_be_built(opened: Any, data: st.DataObject) -> None:
    """A good question with one to three things in it changed: an error of ours, or a vector."""
    question = json.loads(dump(Question(GOOD, places=(0, 5, 6), replicate=1)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(question)))
        question = changed(question, path, data.draw(ODD))
    rules: Rules = opened.rules
    try:
        found = load(Question, json.dumps(question).encode())
        recipe = rules.recipe(found)
        rules.request(found, 400)
    except (CodecError, RecipeError):
        return
    if recipe.ancestors or any(abs(value) > 1e3 for one in recipe.segments for value in one.values):
        return
    Builder(rules.pool, "table" if recipe.noise is None else "dense").resolve(recipe)
