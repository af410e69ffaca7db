"""Writing to SQL: the batch of rows, and its one transaction.

Rows go to the driver as plain tuples with one prepared statement a table: SQLAlchemy's own parameter handling would
cost more than SQLite's insert.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, select, update

from evomerge.candidate import Evaluated, Split
from evomerge.store import rows
from evomerge.store.head import Head
from evomerge.store.port import Artifact, Event, Snapshot, Turn
from evomerge.store.rows import Row
from evomerge.store.schema import (
    artifacts,
    candidates,
    events,
    journal,
    parents,
    populations,
    requests,
    scores,
    slopes,
    snapshots,
    studies,
)


@dataclass
class Batch:
    """Rows that wait for the next commit, table by table."""

    study: int
    objective: str
    keep_losses: bool
    tables: dict[Table, list[Row]] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def add_turn(self, turn: Turn) -> None:
        """Take a turn."""
        study, seq = self.study, rows.integer(turn.seq)
        told = self._score_rows("search", turn.told)
        asked = [rows.candidate_row(study, candidate) for candidate in turn.asked]
        edges = [row for candidate in turn.asked for row in rows.parent_rows(study, candidate)]
        changes = [rows.change_row(study, seq, place, change) for place, change in enumerate(turn.changes)]
        words = " ".join(str(row[2]) for row in told), " ".join(str(row[1]) for row in asked)
        self._extend(scores, told)
        self._extend(slopes, rows.slope_rows(study, turn.told))
        self._extend(candidates, asked)
        self._extend(requests, rows.request_rows(study, turn.asked))
        self._extend(parents, edges)
        self._extend(populations, changes)
        self._extend(journal, [(study, seq, *words)])

    def add_scores(self, split: Split, evaluated: Sequence[Evaluated]) -> None:
        """Take results."""
        self._extend(scores, self._score_rows(split, evaluated))
        if split == "search":
            self._extend(slopes, rows.slope_rows(self.study, evaluated))

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Take a snapshot."""
        self._extend(snapshots, [(self.study, rows.integer(snapshot.seq), snapshot.digest, snapshot.state)])

    def add_event(self, place: int, event: Event) -> None:
        """Take an event."""
        number = None if event.number is None else rows.integer(event.number)
        self._extend(events, [(self.study, place, event.at, event.level, event.kind, json.dumps(event.text), number)])

    def add_artifact(self, artifact: Artifact) -> None:
        """Take an artifact."""
        for text in (artifact.name, artifact.kind, artifact.address, artifact.digest):
            rows.plain(text)
        self.artifacts[artifact.name] = artifact

    def _score_rows(self, split: Split, evaluated: Sequence[Evaluated]) -> list[Row]:
        return [rows.score_row(self.study, split, one, self.objective, self.keep_losses) for one in evaluated]

    def _extend(self, table: Table, added: list[Row]) -> None:
        if added:
            self.tables.setdefault(table, []).extend(added)


@cache
def insertion(table: Table, sqlite: bool) -> str:
    """The statement that adds a row to ``table``, and does nothing when its key is there."""
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = ", ".join(["?" if sqlite else "%s"] * len(table.columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def write(connection: Connection, batch: Batch, head: Head, now: ColumnElement[float]) -> None:
    """Write the batch and the study's head, in the caller's transaction. Repeatable."""
    on_sqlite = connection.dialect.name == "sqlite"
    for table, added in batch.tables.items():
        connection.exec_driver_sql(insertion(table, on_sqlite), added)
    if snapshots in batch.tables:
        _forget_old_states(connection, batch.study)
    for artifact in batch.artifacts.values():
        connection.execute(delete(artifacts).where(artifacts.c.study == batch.study, artifacts.c.name == artifact.name))
        connection.execute(insert(artifacts).values(study=batch.study, **asdict(artifact)))
    connection.execute(update(studies).where(studies.c.id == batch.study).values(updated=now, **asdict(head)))


def _forget_old_states(connection: Connection, study: int) -> None:
    newest = select(snapshots.c.seq).where(snapshots.c.study == study).order_by(snapshots.c.seq.desc()).limit(2)
    old = (snapshots.c.study == study, snapshots.c.state.is_not(None), snapshots.c.seq.not_in(newest))
    connection.execute(update(snapshots).where(*old).values(state=None))
