import math
from collections.abc import Callable

import pytest

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge.build import Builder, Mode
from evomerge.merge.pool import ModelPool

MakePool = Callable[..., ModelPool]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe("linear", ("pool:mm",), (Segment("all", 0, 95, (1.0,)),)), "no member 'mm'; it has m0, m1, m2"),
        (Recipe("linear", ("m0",), (Segment("all", 0, 95, (1.0,)),)), "unknown source 'm0'"),
        (Recipe("linear", ("pool:m0",), (Segment("all", 0, 94, (1.0,)),)), "segments end at"),
        (Recipe("linear", ("pool:m0",), (Segment("all", 1, 95, (1.0,)),)), "does not continue"),
        (Recipe("linear", ("pool:m0",), (Segment("some", 0, 95, (1.0,)),)), "does not continue group 'some'"),
        (Recipe("linear", ("pool:m0",), (Segment("all", 0, 96, (1.0,)),)), "segments end at"),
        (Recipe("linear", ("pool:m0",), (Segment("all", 0, 95, ()),)), "0 values, but Linear needs 1"),
        (Recipe("linear", ("pool:m0",), (Segment("all", 0, 95, (math.nan,)),)), "weight = nan"),
        (Recipe("slerp", ("pool:m0",), (Segment("all", 0, 95, (0.5,)),)), "takes 2 sources"),
    ],
)
@pytest.mark.parametrize("mode", ["dense", "table"])
def test_impossible_recipes_are_named(make_pool: MakePool, mode: Mode, recipe: Recipe, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Builder(make_pool(), mode).resolve(recipe)
