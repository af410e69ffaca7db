"""What the parts of the store contract share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from evomerge import codec
from evomerge.store.port import Store, StudyStore
from evomerge.testing.stores.samples import RECORD

Factory = Callable[..., Store]

LONG = 1_200
"""Turns enough for any store to read them in more than one go."""

FOREVER = 1_000.0
"""A ``commit_every`` that no test lives to see."""


def same(left: Iterable[object], right: Iterable[object]) -> bool:
    """Whether two sequences of values have the same exact texts."""
    return [codec.dump(value) for value in left] == [codec.dump(value) for value in right]


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether the condition comes true within a generous time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class StoreFixtures:
    """Override ``factory``."""

    @pytest.fixture
    def factory(self) -> Factory:
        """Opens stores on one database: takes `open_store`'s options."""
        raise NotImplementedError("override the factory fixture of StoreContract")

    @pytest.fixture
    def connect(self, factory: Factory) -> Iterator[Factory]:
        """The factory; what it opened is closed in the end. The database holds one study."""
        opened: list[Store] = []

        def connect(**options: Any) -> Store:
            opened.append(factory(**options))
            return opened[-1]

        connect().create(RECORD)
        yield connect
        for store in opened:
            store.close()

    @pytest.fixture
    def study(self, connect: Factory) -> StudyStore:
        """The study, open for writing; only its first save commits by itself."""
        return connect(commit_every=FOREVER).open(RECORD.name, write=True)
