"""``evomerge status``."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli import databases
from evomerge.cli.output import Json, ago, columns, emit, number, say

if TYPE_CHECKING:
    from evomerge.store.port import Lease, StudyStore, Summary


def status(
    db: Annotated[
        str | None,
        typer.Argument(
            envvar=databases.ENVIRONMENT,
            help="The database: a file, a postgresql:// address, or a study file. Default: the only .db file here.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """All studies of a database, one line each."""
    url = databases.address(db)
    with databases.opened(url) as store:
        found = store.studies()
    if json:
        emit({"database": databases.shown(url), "studies": [_document(one) for one in found]})
    elif found:
        head = ("STUDY", "STATUS", "TOLD", "IN FLIGHT", "FAILED", "BEST", "FINAL", "UPDATED")
        say(columns([head, *(_row(one) for one in found)]))
    else:
        say(f"no study in {databases.shown(url)}")


def state_of(summary: Summary) -> str:
    """The status as people need it: a running study without a living driver was interrupted."""
    if summary.status in ("created", "running") and not _is_driven(summary.lease):
        return "interrupted"
    return summary.status


def _is_driven(lease: Lease | None) -> bool:
    if lease is None or lease.expires < time.time():
        return False
    if lease.host != socket.gethostname():
        return True
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # someone else's, alive
    return True


def evaluations(study: StudyStore, asked: int) -> float:
    """How many whole evaluations were asked for, those on some items counted by their share."""
    from evomerge.study import record as records

    parts = any(request.ranges is not None for request in study.requests())
    items = records.problem_of(study.record).items if parts else 0
    return study.items_asked(items) / items if items else float(asked)


def _document(summary: Summary) -> dict[str, object]:
    return asdict(summary) | {"state": state_of(summary)}


def _row(summary: Summary) -> tuple[str, ...]:
    best = "-" if summary.best is None else f"{number(summary.best)} (#{summary.best_number})"
    return (
        summary.name,
        state_of(summary),
        str(summary.told),
        str(summary.asked - summary.told),
        str(summary.failed),
        best,
        "-" if summary.final is None else f"#{summary.final}",
        ago(summary.updated),
    )
