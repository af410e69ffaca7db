"""One database: its connections, transactions that survive short trouble, and the way to its present schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, Double, Engine, create_engine, event, inspect, literal_column, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from evomerge.errors import SchemaError, StoreError
from evomerge.store import schema, trouble

T = TypeVar("T")
Mode = Literal["read", "write", "bare"]

LOCK_TIMEOUT = 5.0
"""Seconds SQLite itself waits for another writer."""

_BEGIN = {"read": "BEGIN", "write": "BEGIN IMMEDIATE", "bare": ""}
_SCHEMA_LOCK = 0x65766F6D  # any number of our own, for PostgreSQL's advisory lock
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}


class Database:
    """An SQLite file or a PostgreSQL database.

    Args:
        url: an SQLAlchemy address, such as ``sqlite:///study.db`` or ``postgresql://user@host/name``.
        retry_seconds: how long a transaction is tried again while the database is locked, full or away.
    """

    def __init__(self, url: str, retry_seconds: float) -> None:
        self.url = _parse(url)
        self.where = self.url.render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._patience = retry_seconds
        self._away = False
        self._ready = False
        self._engine = _sqlite_engine(self.url, retry_seconds) if self.sqlite else _postgres_engine(self.url)
        self.now: ColumnElement[float] = literal_column(_CLOCKS[self.url.get_backend_name()], Double)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # --- transactions -----------------------------------------------------------------------------------------

    def run(self, work: Callable[[Connection], T], *, mode: Mode = "read", patient: bool = True) -> T:
        """Do ``work`` in one transaction, again and again through passing trouble. ``work`` must be repeatable.

        In SQLite a transaction with ``mode="write"`` takes its lock at once, so that it can wait for it instead of
        failing half-way; ``"bare"`` is no transaction at all.

        Raises:
            StoreUnavailableError: trouble lasted longer than ``retry_seconds``; from then on every call tries only
                once until one succeeds, so that a driver that is stopping need not wait again. Without ``patient`` at
                the first trouble.
            SchemaError, StoreError: the database is damaged, or refuses for good.
        """
        began, pause = time.monotonic(), 0.05
        while True:
            try:
                result = self._once(work, mode)
            except DBAPIError as error:
                waited = time.monotonic() - began
                hopeless = trouble.kind_of(error) not in ("passing", "full")
                if hopeless or not patient or self._away or waited + pause > self._patience:
                    self._away = self._away or (patient and not hopeless)
                    raise trouble.explain(error, self.where, waited) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
            else:
                self._away = False
                return result

    def _once(self, work: Callable[[Connection], T], mode: Mode) -> T:
        with self._engine.connect().execution_options(evomerge_mode=mode) as connection, connection.begin():
            return work(connection)

    # --- schema -----------------------------------------------------------------------------------------------

    def prepare(self, *, create: bool = False, upgrade: bool = False) -> bool:
        """Make sure that the tables are there and of this version; ``False`` if there are none and none is wanted.

        Raises:
            SchemaError: the schema is newer, or older and not to be upgraded, or this is another program's file.
        """
        if self._ready:
            return True
        if self.sqlite and not create and not Path(self.url.database or "").exists():
            return False
        version = self.run(self._version, patient=False)
        if version == schema.VERSIONS[-1]:
            self._ready = True
        elif version is None and create:
            self._create()
        elif version is not None and (create or upgrade):
            self.run(self._upgrade, mode="write")
            self._ready = True
        elif version is not None:
            raise SchemaError(
                f"{self.where} has the older schema {version or '(unfinished)'}; this evomerge uses "
                f"{schema.VERSIONS[-1]}. Resume a study in it once to upgrade it"
            )
        return self._ready

    def _version(self, connection: Connection) -> str | None:
        """The schema's version; ``None`` in an empty database, ``""`` when the version table is empty."""
        if not inspect(connection).has_table(schema.VERSION_TABLE):
            if self.sqlite and inspect(connection).get_table_names():
                raise SchemaError(f"{self.where} belongs to another program; name another file with store.url")
            return None
        version = connection.execute(text(f"SELECT version_num FROM {schema.VERSION_TABLE}")).scalar() or ""
        if version and version not in schema.VERSIONS:
            raise SchemaError(
                f"{self.where} has schema {version}, which this evomerge does not know (it knows up to "
                f"{schema.VERSIONS[-1]}); use the newer evomerge that wrote it"
            )
        return str(version)

    def _create(self) -> None:
        if self.sqlite:  # readers and the writer do not wait for each other; the file remembers it
            self.run(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar(), mode="bare")
        self.run(self._create_tables, mode="write")
        self._ready = True

    def _create_tables(self, connection: Connection) -> None:
        self._lock_schema(connection)
        if self._version(connection) is None:  # another process may have been faster
            schema.metadata.create_all(connection)
            connection.execute(
                text(
                    f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
                    f"CONSTRAINT {schema.VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
                )
            )
            connection.execute(text(f"INSERT INTO {schema.VERSION_TABLE} VALUES ('{schema.VERSIONS[-1]}')"))

    def _upgrade(self, connection: Connection) -> None:
        from evomerge.store.migrations import upgrade

        self._lock_schema(connection)
        upgrade(connection)

    def _lock_schema(self, connection: Connection) -> None:
        if not self.sqlite:  # SQLite's write transaction excludes others already
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise StoreError(
            f"store.url {address!r} is no address; write sqlite:///study.db or postgresql://..."
        ) from error
    backend = {"postgres": "postgresql"}.get(url.get_backend_name(), url.get_backend_name())
    if backend not in _CLOCKS:
        raise StoreError(f"store.url names the database {backend!r}; evomerge can use sqlite and postgresql")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("store.url names no file; write sqlite:///study.db, or memory://NAME for a passing study")
    return url.set(drivername=_DRIVERS[backend])


def _sqlite_engine(url: URL, retry_seconds: float) -> Engine:
    timeout = min(LOCK_TIMEOUT, retry_seconds)
    engine = create_engine(url, pool_size=2, max_overflow=4, connect_args={"timeout": timeout})

    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        connection.execute("PRAGMA synchronous=NORMAL")

    def begin(connection: Connection) -> None:
        word = _BEGIN[connection.get_execution_options().get("evomerge_mode", "read")]
        if word:
            connection.exec_driver_sql(word)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_size=2, max_overflow=4, pool_pre_ping=True)
    except ImportError as error:
        raise StoreError("PostgreSQL needs a driver; install it with: pip install 'evomerge[postgres]'") from error
