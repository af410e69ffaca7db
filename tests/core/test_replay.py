from __future__ import annotations

from evomerge.replay import population_changes
from evomerge.store.port import Change


def test_changes_of_a_population_name_only_slots_that_changed() -> None:
    assert population_changes((1, 2, None), (1, 3, 4)) == (Change(1, 3), Change(2, 4))
    assert population_changes((1, 2), (1, 2)) == ()


def test_a_population_may_grow_and_shrink() -> None:
    assert population_changes((), (7, None)) == (Change(0, 7),)
    assert population_changes((1, 2, 3), (1, 5)) == (Change(1, 5), Change(2, None))
