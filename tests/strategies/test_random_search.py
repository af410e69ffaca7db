"""Random search: what it draws uniformly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evomerge.errors import StrategyError
from evomerge.space import OperatorSpace, WeightSpace
from evomerge.testing.landscape import MIXED, problem, search, weights
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings


def drawn(count: int, **settings: Any) -> np.ndarray:
    """The values of so many candidates of a pool of three."""
    strategy = RandomSearch(RandomSearchSettings(score_members=False, **settings), problem(3))
    return np.array([weights(candidate) for candidate in search(strategy, lambda _: 1.0, count)[1]])


def test_a_box_is_drawn_from_evenly_and_factors_evenly_in_their_logarithms() -> None:
    values = drawn(2000, space=MIXED)
    assert values[:, :3].mean(axis=0) == pytest.approx([0.5] * 3, abs=0.03)
    assert np.log10(values[:, 3]).mean() == pytest.approx(-2.0, abs=0.1)
    assert np.bincount(values[:, 4].astype(int))[1:] == pytest.approx([2000 / 9] * 9, rel=0.25)


def test_a_simplex_is_drawn_from_evenly() -> None:
    values = drawn(2000, space=WeightSpace("simplex"))
    assert values.sum(axis=1) == pytest.approx(1.0)
    assert values.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert values.var(axis=0) == pytest.approx([1 / 18] * 3, rel=0.1)  # of a flat Dirichlet over three


def test_a_parameter_is_drawn_evenly_from_values_that_sum_to_one_and_the_others_as_before() -> None:
    values = drawn(2000, space=MIXED, dirichlet=("weight",))
    assert values[:, :3].sum(axis=1) == pytest.approx(1.0)
    assert values[:, :3].var(axis=0) == pytest.approx([1 / 18] * 3, rel=0.1)
    assert (values[:, 3:] == drawn(2000, space=MIXED)[:, 3:]).all()


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (MIXED, "weigth", "'weigth' is no searched parameter"),
        (MIXED, "rate", "'rate' is no searched parameter with a value for each model"),
        (WeightSpace(), "weight", "is no searched parameter"),
        (OperatorSpace("operator", "mixed", shared=("weight",)), "weight", "is no searched parameter"),
        (OperatorSpace("operator", "mixed", fixed={"weight": 1.0}), "weight", "is no searched parameter"),
        (OperatorSpace("operator", "mixed", search={"weight": (0.2, 1.0)}), "weight", "searched from 0 to 1"),
    ],
)
def test_what_has_no_values_that_could_sum_to_one_is_refused(space: Any, name: str, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        drawn(1, space=space, dirichlet=(name,))
