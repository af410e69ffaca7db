"""The order in which items are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.itemorder import chosen, item_order

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(LABELS, st.sampled_from(["auto", "natural", "random", "stratified"]), st.integers(0, 2**70))
def test_it_is_a_permutation_and_the_same_again(labels: list[int], order: str, seed: int) -> None:
    strata = np.array(labels)
    one = item_order(order, len(labels), strata, seed)  # type: ignore[arg-type] # one of its words
    two = item_order(order, len(labels), strata, seed)  # type: ignore[arg-type] # one of its words
    assert sorted(one) == list(range(len(labels)))
    assert (one == two).all()


@given(LABELS, st.integers(0, 99))
def test_every_beginning_has_all_kinds_in_proportion(labels: list[int], seed: int) -> None:
    strata = np.array(labels)
    order = item_order("stratified", strata.size, strata, seed)
    for size in range(1, strata.size + 1):
        for kind in set(labels):
            expected = size * np.mean(strata == kind)
            assert abs(np.sum(strata[order[:size]] == kind) - expected) <= 1 + len(set(labels)) / 2


def test_auto_is_stratified_only_where_there_are_kinds() -> None:
    strata = np.arange(30) % 3
    assert (item_order("auto", 30, strata, 1) == item_order("stratified", 30, strata, 1)).all()
    assert (item_order("auto", 30, None, 1) == item_order("random", 30, None, 1)).all()
    assert (item_order("natural", 30, strata, 1) == np.arange(30)).all()
    assert (item_order("random", 30, None, 1) != item_order("random", 30, None, 2)).any()


@pytest.mark.parametrize(("ranges", "expected"), [((), []), (((1, 3), (0, 1)), [5, 6, 4])])
def test_ranges_choose_in_their_own_order(ranges: tuple[tuple[int, int], ...], expected: list[int]) -> None:
    assert chosen(np.array([4, 5, 6, 7]), ranges).tolist() == expected
