"""Recipes, scores and random streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evomerge.candidate import Noise, Recipe, Score, Segment, check_score
from evomerge.errors import EvaluationError
from evomerge.streams import stream

RECIPE = Recipe("slerp", ("pool:a", "recipe:" + "0" * 32), (Segment("all", 0, 9, (0.25,)),), (("angle", "global"),))


def test_equal_recipes_have_equal_digests_and_every_field_counts() -> None:
    again = Recipe("slerp", ("pool:a", "recipe:" + "0" * 32), (Segment("all", 0, 9, (0.25,)),), (("angle", "global"),))
    assert again.digest == RECIPE.digest
    others = [
        replace(RECIPE, operator="linear"),
        replace(RECIPE, sources=RECIPE.sources[::-1]),
        replace(RECIPE, segments=(Segment("all", 0, 9, (0.25000000000000006,)),)),
        replace(RECIPE, options=(("angle", "per_segment"),)),
        replace(RECIPE, noise=Noise(0.01, 1, 2)),
    ]
    assert len({recipe.digest for recipe in [RECIPE, *others]}) == 6


def test_ancestors_are_the_recipes_among_the_sources() -> None:
    assert RECIPE.ancestors == ("0" * 32,)


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (Score((), np.zeros(3)), "no objective"),
        (Score((("a", float("nan")),), np.zeros(3)), "nan for objective 'a'"),
        (Score((("a", 1.0),)), "no per-item scores"),
        (Score((("a", 1.0),), np.zeros(2)), r"\(2,\), but the split has 3"),
        (Score((("a", 1.0),), np.zeros((3, 1))), "shape"),
        (Score((("a", 1.0),), np.zeros(3), np.array([0.0, np.inf, 0.0])), "first at item 1"),
    ],
)
def test_unusable_scores_say_why(score: Score, problem: str) -> None:
    with pytest.raises(EvaluationError, match=problem):
        check_score(score, 3)


def test_an_unknown_objective_names_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="accuracy, loss"):
        Score((("accuracy", 1.0), ("loss", 2.0)))["f1"]


def test_streams_depend_on_seed_number_and_name_and_on_nothing_else() -> None:
    first = stream(1, 2).random(4)
    stream(1, 3).random(100)
    assert (stream(1, 2).random(4) == first).all()
    others = [stream(2, 2), stream(1, 3), stream(1, 2, "restart")]
    assert all((other.random(4) != first).any() for other in others)
