"""What to make of an error from the database: wait and try again, or stop, and what to tell the user."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from evomerge.errors import SchemaError, StoreError, StoreUnavailableError

Trouble = Literal["passing", "full", "damaged", "refused"]

_SQLITE_FULL = 13
_SQLITE_DAMAGED = {11, 26}  # CORRUPT, NOTADB
_SQLITE_PASSING = {5, 6, 7, 8, 9, 10, 14, 15}  # BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CANTOPEN PROTOCOL
_POSTGRES_FULL = "53100"
_POSTGRES_DAMAGED = {"XX001", "XX002"}


def kind_of(error: DBAPIError) -> Trouble:
    """Which kind of trouble an error is."""
    state = getattr(error.orig, "sqlstate", None)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if state == _POSTGRES_FULL or (code is not None and code & 0xFF == _SQLITE_FULL):
        return "full"
    if state in _POSTGRES_DAMAGED or (code is not None and code & 0xFF in _SQLITE_DAMAGED):
        return "damaged"
    if code is not None:
        return "passing" if code & 0xFF in _SQLITE_PASSING else "refused"
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return "passing"
    return "refused"


def cause_of(error: DBAPIError) -> str:
    """The database's own words, on one line."""
    return " ".join(str(error.orig).split())


def explain(error: DBAPIError, where: str, waited: float) -> StoreError:
    """The error for the user, after ``waited`` seconds of trying."""
    kind, cause = kind_of(error), cause_of(error)
    tried = f" through {waited:.0f} s of trying" if waited >= 1 else ""
    if kind == "full":
        return StoreUnavailableError(
            f"the disk of the study database {where} is full{tried} ({cause}); what was committed is safe. Free some "
            "space, then resume"
        )
    if kind == "passing":
        return StoreUnavailableError(
            f"the study database {where} cannot be used{tried} ({cause}); what was committed is safe. See that it is "
            "there, writable and not locked by another program, then resume"
        )
    if kind == "damaged":
        return SchemaError(
            f"{where} is damaged or no database ({cause}); name another one with store.url, restore a backup, or save "
            "what can be read with `sqlite3 FILE .recover`"
        )
    return StoreError(f"the study database {where} refused ({cause}); check the permissions of its user and its tables")
