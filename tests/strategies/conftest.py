"""What the contracts of strategies may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from evomerge.store import open_store
from evomerge.store.port import Store


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.pg)])
def every_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the stores in turn.

    A class of tests that does not say its ``stride`` is killed at every save over memory, where no time is lost, and at
    every seventh over the databases.
    """
    if request.instance is not None and "stride" not in vars(type(request.instance)):
        request.instance.stride = 1 if request.param == "memory" else 7
    urls = {"memory": f"memory://{uuid4().hex}", "sqlite": f"sqlite:///{tmp_path}/study.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres_url")
    with open_store(url, commit_every=0) as store:
        yield store
