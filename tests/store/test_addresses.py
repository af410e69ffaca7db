"""What ``store.url`` may be."""

import sys

import pytest

from evomerge.errors import StoreError
from evomerge.store import open_store
from evomerge.store.database import Database


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("study.db", "write sqlite:///study.db"),
        ("", "write sqlite:///study.db"),
        ("mysql://host/name", "can use sqlite and postgresql"),
        ("sqlite://", "names no file.*memory://"),
        ("sqlite:///:memory:", "names no file.*memory://"),
    ],
)
def test_a_wrong_address_says_what_to_write(url: str, cure: str) -> None:
    with pytest.raises(StoreError, match=cure):
        open_store(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_any_postgres_address_uses_psycopg(scheme: str) -> None:
    database = Database(f"{scheme}://user:secret@host/name", 1.0)
    assert database.url.drivername == "postgresql+psycopg"
    assert "secret" not in database.where
    database.close()


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'evomerge\[postgres\]'"):
        open_store("postgresql://host/name")
