"""Studies in an SQL database: SQLite by default, PostgreSQL by address."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from evomerge.store import naming, rows
from evomerge.store.database import Database
from evomerge.store.port import Store, StudyRecord, StudyStore, Summary
from evomerge.store.schema import leases, studies
from evomerge.store.sqlstudy import Options, SqlStudy


class SqlStore(Store):
    """Studies behind an SQLAlchemy address.

    SQLite runs with a write-ahead log and ``synchronous=NORMAL``: killing the process loses nothing that was committed;
    a power cut may lose the last commits, and never damages the file.

    Args:
        url: ``sqlite:///study.db`` or ``postgresql://user@host/name``.
        commit_every: seconds of saved turns that share one commit; 0 commits each turn by itself.
        lease_seconds: how long a silent driver keeps its study.
        keep_losses: whether per-item losses are kept.
        retry_seconds: how long to try again while the database is locked, full or away.
    """

    def __init__(
        self,
        url: str,
        *,
        commit_every: float = 0.1,
        lease_seconds: float = 60.0,
        keep_losses: bool = True,
        retry_seconds: float = 30.0,
    ) -> None:
        self._database = Database(url, retry_seconds)
        self._options = Options(commit_every, lease_seconds, keep_losses)
        self._opened: list[SqlStudy] = []

    def create(self, record: StudyRecord) -> None:
        """Add a study."""
        self._database.prepare(create=True)
        now = self._database.now

        def work(connection: Connection) -> None:
            counts = dict.fromkeys(("turns", "asked", "told", "failed", "events"), 0)
            values = rows.record_values(record) | counts | {"status": "created", "created": now, "updated": now}
            try:
                connection.execute(insert(studies).values(values))
            except IntegrityError as error:
                raise naming.exists(record.name) from error

        self._database.run(work, mode="write")

    def studies(self) -> tuple[Summary, ...]:
        """All studies, by name."""
        if not self._database.prepare():
            return ()
        query = select(studies, leases).outerjoin(leases, leases.c.study == studies.c.id)
        found = self._database.run(lambda connection: connection.execute(query).all())
        return tuple(sorted((rows.to_summary(row) for row in found), key=lambda summary: summary.name))

    def open(self, name: str, *, write: bool = False, steal: bool = False) -> StudyStore:
        """Open a study; with ``write`` take its lease."""
        if not self._database.prepare(upgrade=write):
            raise naming.not_found(name, (), self._database.where)
        row = self._database.run(
            lambda connection: connection.execute(select(studies).where(studies.c.name == name)).one_or_none()
        )
        if row is None:
            raise naming.not_found(name, (summary.name for summary in self.studies()), self._database.where)
        study = SqlStudy(self._database, row.id, rows.to_record(row), self._options)
        if write:
            study.take(steal)
            self._opened.append(study)
        return study

    def close(self) -> None:
        """Release what was opened for writing and close all connections. Safe to call twice."""
        try:
            while self._opened:
                self._opened.pop().release()
        finally:
            self._database.close()
