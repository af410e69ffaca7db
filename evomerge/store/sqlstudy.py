"""One opened study of an `SqlStore`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, Select, select, update

from evomerge.candidate import Candidate, Evaluated, Recipe, Request, Split
from evomerge.errors import StoreError
from evomerge.store import rows
from evomerge.store.buffered import BufferedStudy
from evomerge.store.database import Database
from evomerge.store.head import Head
from evomerge.store.port import Artifact, Change, Event, Snapshot, StudyRecord, Summary, Turn
from evomerge.store.schema import artifacts, events, leases, snapshots, studies
from evomerge.store.sqllease import SqlLease
from evomerge.store.sqlread import PAGE, Reader, pages
from evomerge.store.sqlwrite import Batch, write

T = TypeVar("T")


class Options(NamedTuple):
    """What a store passes on to each study it opens."""

    commit_every: float
    lease_seconds: float
    keep_losses: bool


class SqlStudy(BufferedStudy[Batch]):
    """A study in a database. Reading commits first what waits, so that one's own writes are always seen."""

    def __init__(self, database: Database, number: int, record: StudyRecord, options: Options) -> None:
        super().__init__(record, *options)
        self._database = database
        self._number = number
        self._lease = SqlLease(database, number, record.name, options.lease_seconds)

    def take(self, steal: bool) -> None:
        """Take the lease and begin to write.

        Raises:
            LeaseError: another driver holds it.
        """
        taken_over = self._lease.take(steal)
        row = self._database.run(
            lambda connection: connection.execute(select(studies).where(studies.c.id == self._number)).one()
        )
        self._record = rows.to_record(row)
        self._begin(Head(*(getattr(row, name) for name in Head.__slots__)))
        if taken_over:
            self.add_event("warning", "takeover", taken_over)

    # --- hooks of BufferedStudy -------------------------------------------------------------------------------

    def _new_batch(self) -> Batch:
        return Batch(self._number, self._record.objective, self._keep_losses)

    def _commit(self, batch: Batch, head: Head, patient: bool) -> None:
        def work(connection: Connection) -> None:
            self._lease.renew(connection)
            write(connection, batch, head, self._database.now)

        self._database.run(work, mode="write", patient=patient)

    def _renew(self) -> None:
        self._database.run(self._lease.renew, mode="write", patient=False)

    def _give_back(self) -> None:
        self._lease.give_back()

    def _amend(self, record: StudyRecord) -> None:
        def work(connection: Connection) -> None:
            self._lease.renew(connection)
            connection.execute(update(studies).where(studies.c.id == self._number).values(rows.record_values(record)))

        self._database.run(work, mode="write")

    # --- reading ----------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[Reader], T], items: bool = True) -> T:
        """One short reading transaction."""
        return self._database.run(lambda connection: work(Reader(connection, self._number, items)))

    def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        self.flush()
        return self._database.run(lambda connection: connection.execute(query).all())

    def summary(self) -> Summary:
        """Status and counts."""
        query = select(studies, leases).outerjoin(leases, leases.c.study == studies.c.id)
        (row,) = self._all(query.where(studies.c.id == self._number))
        return rows.to_summary(row)

    def _length(self) -> int:
        ((turns,),) = self._all(select(studies.c.turns).where(studies.c.id == self._number))
        return int(turns)

    def turns(self, after: int = -1, items: bool = True) -> Iterator[Turn]:
        """The journal, turn by turn, as far as it was when this was called first."""
        waiting: dict[int, Candidate] = {}
        for page in pages(range(after + 1, self._length())):
            yield from self._run(partial(Reader.turns, first=page[0], last=page[-1], waiting=waiting), items)

    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots in order; older ones without text."""
        query = select(snapshots.c.seq, snapshots.c.digest, snapshots.c.state)
        return tuple(
            Snapshot(row.seq, row.digest, row.state)
            for row in self._all(query.where(snapshots.c.study == self._number).order_by("seq"))
        )

    def candidates(self, numbers: Iterable[int]) -> tuple[Candidate, ...]:
        """The candidates with these numbers, in this order."""
        self.flush()
        wanted = list(numbers)
        found = self._run(partial(Reader.candidates, numbers=set(wanted)))
        unknown = [number for number in wanted if number not in found]
        if unknown:
            raise StoreError(f"study {self._record.name!r} has no candidate {unknown[0]}")
        return tuple(found[number] for number in wanted)

    def digests(self, since: int = 0) -> Iterator[tuple[int, str, Request]]:
        """Number, recipe digest and request, from a number on."""
        ((asked,),) = self._all(select(studies.c.asked).where(studies.c.id == self._number))
        for page in pages(range(since, int(asked))):
            yield from self._run(partial(Reader.digests, first=page[0], last=page[-1]))

    def requests(self) -> dict[Request, int]:
        """How many candidates were asked with each request other than the plain one."""
        self.flush()
        return self._run(Reader.request_counts)

    def recipes(self, digests: Iterable[str]) -> dict[str, Recipe]:
        """The known ones among these recipes, by digest."""
        self.flush()
        return self._run(partial(Reader.recipes, digests=set(digests)))

    def scores(self, split: Split, numbers: Iterable[int] | None = None, items: bool = True) -> Iterator[Evaluated]:
        """Results on a split, by candidate number."""
        self.flush()
        if numbers is None:
            yield from self._all_scores(split, items)
            return
        for page in pages(sorted(set(numbers))):
            found = self._run(partial(Reader.scores, split=split, numbers=page, known={}), items)
            yield from (found[number] for number in page if number in found)

    def _all_scores(self, split: Split, items: bool) -> Iterator[Evaluated]:
        after, found = -1, None
        while found is None or len(found) == PAGE:
            found = self._run(partial(Reader.score_page, split=split, after=after), items)
            yield from found.values()
            after = max(found, default=after)

    def changes(self) -> Iterator[tuple[int, Change]]:
        """Every population change with its turn."""
        for page in pages(range(self._length())):
            found = self._run(partial(Reader.changes, first=page[0], last=page[-1]))
            yield from ((turn, change) for turn, changes in found.items() for change in changes)

    def events(self, limit: int | None = None) -> tuple[Event, ...]:
        """The log, oldest first."""
        found = self._all(
            select(events).where(events.c.study == self._number).order_by(events.c.place.desc()).limit(limit)
        )
        return tuple(Event(row.at, row.level, row.kind, json.loads(row.text), row.number) for row in reversed(found))

    def artifacts(self) -> tuple[Artifact, ...]:
        """All artifacts by name."""
        found = self._all(select(artifacts).where(artifacts.c.study == self._number))
        every = (Artifact(row.name, row.kind, row.address, row.digest, row.created) for row in found)
        return tuple(sorted(every, key=lambda artifact: artifact.name))
