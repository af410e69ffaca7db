from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from evomerge.executor.cluster import Cluster
from evomerge.executor.port import Ancestry, Executor, Factory
from evomerge.executor.ray import RayExecutor
from evomerge.testing.executor import ExecutorContract

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[Cluster]:
    """One Ray for all tests here: an executor uses what its process already has, and leaves it alone."""
    cluster = Cluster(None, 4, 1.0, 0.0)
    yield cluster
    cluster.close()


class TestRay(ExecutorContract):
    def make(self, factory: Factory, ancestry: Ancestry, **options: Any) -> Executor:
        return RayExecutor(factory, ancestry, workers=2, **options)
