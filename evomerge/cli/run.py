"""``evomerge run`` and ``evomerge resume``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli import databases, progress
from evomerge.cli.output import Json, duration, emit, note, number, say, worth
from evomerge.cli.status import evaluations
from evomerge.cli.stopping import INTERRUPTED, stoppable
from evomerge.errors import StudyExistsError

if TYPE_CHECKING:
    from evomerge.candidate import Split
    from evomerge.runner import Outcome
    from evomerge.store.port import Store, StudyStore
    from evomerge.study.drive import Watch

NO_RESULT = 7

File = Annotated[Path, typer.Argument(help="The study file.", show_default=False)]
OtherDb = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar=databases.ENVIRONMENT,
        help="The database: a file or a postgresql:// address. Default: the study file's, else the .db beside it.",
        show_default=False,
    ),
]
Budget = Annotated[
    int | None,
    typer.Option("--budget", min=1, metavar="N", help="Evaluations in all, in place of the study file's number."),
]


def run(
    file: File,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Another name for the study than the file's.")] = None,
    budget: Budget = None,
    db: OtherDb = None,
    json: Json = False,
) -> None:
    """Begin a study and run it to its end. Ctrl-C stops it cleanly, twice at once; either way it can be resumed."""
    from evomerge import config
    from evomerge.study import drive

    read = config.read(file)
    url = databases.address_of(read.settings, read.path) if db is None else _new(db)
    called = name or read.settings.study
    options = f"{f' --name {name}' if name else ''}{f' --db {db}' if db else ''}"
    again = f"  evomerge resume {file}{options}"
    with databases.opened(url, read.settings) as store:
        if any(summary.name == called for summary in store.studies()):
            raise StudyExistsError(
                f"study {called!r} is already in {databases.shown(url)}; begin another with --name, or go on with it:\n"
                f"{again}"
            )
        note(f"checking models and data of {called} ...")
        setup = drive.create(read, name=name, budget=budget)
        _finish(store, called, json, again, lambda watch: drive.begin(setup, store, watch))


def resume(
    file: Annotated[
        Path | None, typer.Argument(help="The study file, to compare with what is stored.", show_default=False)
    ] = None,
    *,
    name: Annotated[str | None, typer.Option("--name", help="The study. Default: the file's, or the only one.")] = None,
    db: OtherDb = None,
    budget: Budget = None,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Go on although versions, executor, store, finalists or budget changed."),
    ] = False,
    steal: Annotated[bool, typer.Option("--steal", help="Take the study from a driver that is still alive.")] = False,
    json: Json = False,
) -> None:
    """Go on with a study, exactly as if it had never stopped. With --budget also beyond its end."""
    from evomerge import config
    from evomerge.study import drive

    read = None if file is None else config.read(file)
    url = databases.address(db) if db is not None or read is None else databases.address_of(read.settings, read.path)
    with databases.opened(url) as store:
        called = databases.only_name(store, name or (None if read is None else read.settings.study))
        study = store.open(called)
        if _is_over(study, budget, json):
            return
        settings = config.stored(study.record.settings) if read is None else read.settings
    named = f"{f' {file}' if file else ''} --name {called}{f' --db {databases.shown(url)}' if db or not file else ''}"
    note(f"checking models and data of {called} ...")
    with databases.opened(url, settings) as store:

        def go(watch: Watch) -> Outcome:
            return drive.resume(
                store,
                called,
                read,
                budget=budget,
                allow_changed=allow_changed,
                steal=steal,
                beside=databases.folder(url),
                watch=watch,
            )

        _finish(store, called, json, f"  evomerge resume{named}", go)


def _new(db: str) -> str:
    """The address of a database that need not be there yet."""
    return db if "://" in db else f"sqlite:///{Path(db).absolute()}"


def _is_over(study: StudyStore, budget: int | None, json: bool) -> bool:
    """Whether there is nothing to resume; then it has been said."""
    summary = study.summary()
    if summary.status != "finished" or budget is not None:
        return False
    spent = worth(evaluations(study, summary.told))
    text = f"study {summary.name!r} is finished after {spent} evaluations; --budget N with a larger N goes on"
    if json:
        emit(_document(study, text, 0.0))
    else:
        say(text)
    return True


def _finish(store: Store, name: str, json: bool, again: str, go: Callable[[Watch], Outcome]) -> None:
    """Run under signals and progress, then say what came of it; ``again`` is the command that goes on with it."""
    from evomerge.study.drive import Watch

    began = time.monotonic()
    shown: AbstractContextManager[Any] = progress.shown(name)
    with stoppable() as stop:
        try:
            with shown as show:
                outcome = go(Watch(stop, show))
        except KeyboardInterrupt:
            note(f"interrupted; what was told is saved\nGo on with:\n{again}")
            raise typer.Exit(INTERRUPTED) from None
    seconds = time.monotonic() - began
    study = store.open(name)
    if json:
        emit(_document(study, outcome.reason, seconds))
    else:
        say(_text(study, outcome, seconds, again))
    if outcome.status == "paused":
        raise typer.Exit(INTERRUPTED)
    if outcome.status == "stopped":
        raise typer.Exit(NO_RESULT)


def _scores(study: StudyStore, candidate: int | None) -> dict[Split, float]:
    names: tuple[Split, ...] = ("search", "selection", "report")
    found: dict[Split, float] = {}
    for split in names:
        for one in study.scores(split, () if candidate is None else (candidate,), items=False):
            some = split == "search" and one.candidate.request.ranges is not None  # the first round of a race, say
            if one.score is not None and not some:
                found[split] = one.score[study.record.objective]
    return found


def _document(study: StudyStore, reason: str, seconds: float) -> dict[str, Any]:
    summary = study.summary()
    return {
        "study": summary.name,
        "status": summary.status,
        "reason": reason,
        "asked": summary.asked,
        "told": summary.told,
        "failed": summary.failed,
        "objective": study.record.objective,
        "best": summary.best,
        "best_number": summary.best_number,
        "final": summary.final,
        "scores": _scores(study, summary.final),
        "seconds": round(seconds, 3),
    }


def _text(study: StudyStore, outcome: Outcome, seconds: float, again: str) -> str:
    summary = study.summary()
    if outcome.status == "paused":
        return f"paused: {outcome.reason}\nGo on with:\n{again}"
    failed = f", {summary.failed} failed" if summary.failed else ""
    spent = f"{worth(evaluations(study, summary.told))} evaluations{failed}"
    head = f"{outcome.status}: {outcome.reason} ({spent}, {duration(seconds)})"
    if outcome.final is None:
        return f"{head}\n'evomerge show {summary.name}' lists the failures"
    scores = ", ".join(f"{split} {number(value)}" for split, value in _scores(study, outcome.final).items())
    return (
        f"{head}\nfinal candidate #{outcome.final}: {study.record.objective} {scores}\n"
        f"see 'evomerge show {summary.name}', keep it with 'evomerge export {summary.name} FOLDER'"
    )
