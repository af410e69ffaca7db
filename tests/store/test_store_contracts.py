"""Every store holds the store contract."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from evomerge.store import open_store
from evomerge.store.port import Store
from evomerge.testing.store import Factory, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def factory(self) -> Factory:
        name = uuid4().hex
        return lambda **options: open_store(f"memory://{name}", **options)


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Factory:
        return lambda **options: open_store(f"sqlite:///{tmp_path}/study.db", **options)


@pytest.mark.pg
class TestPostgresStore(StoreContract):
    @pytest.fixture
    def factory(self, postgres_url: str) -> Factory:
        def factory(**options: Any) -> Store:
            return open_store(postgres_url, **options)

        return factory
