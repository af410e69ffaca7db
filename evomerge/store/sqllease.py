"""The lease row of a study in SQL: taken, renewed within every commit (which fences a loser off), given back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select, update

from evomerge.store import lease, rows
from evomerge.store.database import Database
from evomerge.store.schema import leases
from evomerge.store.sqlwrite import insertion


class SqlLease:
    """One driver's claim on one study. Times are the database's."""

    def __init__(self, database: Database, study: int, name: str, seconds: float) -> None:
        self._database = database
        self._study = study
        self._name = name
        self._seconds = seconds
        self._me = lease.Owner.new()
        self._mine = (leases.c.study == study, leases.c.owner == self._me.token)

    def take(self, steal: bool) -> str | None:
        """Take the lease; what it took over from whom and why, if it did.

        Raises:
            LeaseError: another driver holds it.
        """
        return self._database.run(lambda connection: self._take(connection, steal), mode="write")

    def _take(self, connection: Connection, steal: bool) -> str | None:
        now = connection.execute(select(self._database.now)).scalar_one()
        me = self._me
        mine = {"owner": me.token, "host": me.host, "pid": me.pid, "birth": me.birth}
        mine |= {"since": now, "heartbeat": now, "expires": now + self._seconds}
        statement = insertion(leases, self._database.sqlite)
        while (row := self._row(connection, lock=True)) is None:
            if connection.exec_driver_sql(statement, (self._study, *mine.values())).rowcount == 1:
                return None  # else another driver was a moment faster: look again
        if row.owner == me.token:  # an earlier attempt was committed although its answer was lost
            return None
        held = rows.to_lease(row)
        why = lease.reason_to_take(held, row.birth, now, steal)
        if why is None:
            raise lease.refusal(self._name, held, now)
        connection.execute(update(leases).where(leases.c.study == self._study).values(mine))
        return f"took the study over from {lease.describe(held)}: {why}"

    def _row(self, connection: Connection, lock: bool = False) -> Any:
        query = select(leases).where(leases.c.study == self._study)
        return connection.execute(query.with_for_update() if lock else query).one_or_none()

    def renew(self, connection: Connection) -> None:
        """Renew the lease in the caller's transaction, whose writes thereby exclude any taker-over.

        Raises:
            LeaseError: it was taken over.
        """
        now = self._database.now
        renewal = update(leases).where(*self._mine).values(heartbeat=now, expires=now + self._seconds)
        if connection.execute(renewal).rowcount != 1:
            row = self._row(connection)
            raise lease.lost(self._name, None if row is None else rows.to_lease(row))

    def give_back(self) -> None:
        """Give the lease back, if it is still held."""
        self._database.run(lambda connection: connection.execute(delete(leases).where(*self._mine)), mode="write")
