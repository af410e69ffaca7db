"""``evomerge show``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli.databases import Db, Name, opened_study
from evomerge.cli.fronts import front_document, front_of, front_text
from evomerge.cli.output import Json, columns, duration, emit, number, say, when, worth
from evomerge.cli.pictures import check_picture, paint
from evomerge.cli.status import evaluations, state_of
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.candidate import Evaluated, Split
    from evomerge.store.port import StudyStore, Summary

EVENTS = 10
FAILURES = 5


def show(
    name: Name = None,
    candidate: Annotated[
        int | None, typer.Option("--candidate", "-c", min=0, metavar="N", help="One candidate.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw the front of several objectives (.png, .svg or .pdf)."),
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """A study: summary, best, finalists, front, diagnostics, failures, cost, last events. Or one of its candidates."""
    check_picture(picture)
    with opened_study(db, name) as study:
        document = _study(study) if candidate is None else candidate_document(study, candidate)
        if picture is not None:
            _draw(study, picture)
    if json:
        emit(document)
    else:
        say(_study_text(document) if candidate is None else candidate_text(document))


def _draw(study: StudyStore, picture: Path) -> None:
    """The study's front.

    Raises:
        ConfigError: there is none.
    """
    from evomerge.history import plot_front

    found = front_of(study)
    if found is None:
        raise ConfigError(
            f"study {study.record.name!r} has no front to draw: that takes two objectives and a scored candidate"
        )
    paint(picture, lambda file: plot_front(file, found, title=study.record.name))


# --- a candidate ----------------------------------------------------------------------------------------------------


def scores_of(study: StudyStore, candidate: int) -> dict[Split, Evaluated]:
    """What is stored about a candidate, split by split."""
    names: tuple[Split, ...] = ("search", "selection", "report")
    found = {split: next(iter(study.scores(split, (candidate,), items=False)), None) for split in names}
    return {split: one for split, one in found.items() if one is not None}


def candidate_document(study: StudyStore, candidate: int) -> dict[str, Any]:
    """Everything stored about one candidate, as JSON has it."""
    one = study.candidates((candidate,))[0]
    found = scores_of(study, candidate)
    return {
        "study": study.record.name,
        "number": one.number,
        "origin": one.origin,
        "generation": one.generation,
        "parents": list(one.parents),
        "digest": one.recipe.digest,
        "recipe": asdict(one.recipe),
        "scores": {split: dict(each.score.objectives) for split, each in found.items() if each.score is not None},
        "failure": next((each.failure for each in found.values() if each.failure is not None), None),
        "cost": {split: asdict(each.cost) for split, each in found.items()},
        "notes": {split: dict(each.score.notes) for split, each in found.items() if each.score and each.score.notes},
    }


def candidate_text(document: dict[str, Any]) -> str:
    """The same for people."""
    recipe = document["recipe"]
    parents = ", ".join(f"#{parent}" for parent in document["parents"]) or "none"
    rows = [
        ("origin", document["origin"] or "-"),
        ("parents", f"{parents} (generation {document['generation']})"),
        ("digest", document["digest"]),
        ("operator", " ".join((recipe["operator"], *(f"{key}={value}" for key, value in recipe["options"])))),
        ("sources", ", ".join(recipe["sources"]) or "none"),
        *((f"on {split}", _objectives(scores)) for split, scores in document["scores"].items()),
        *((("failed", document["failure"]),) if document["failure"] else ()),
        *((("noise", str(recipe["noise"])),) if recipe["noise"] else ()),
    ]
    segments = [("SEGMENT", "FROM", "TO", "VALUES")]
    for one in recipe["segments"]:
        values = " ".join(f"{value:.6g}" for value in one["values"])
        segments.append((one["group"], str(one["start"]), str(one["stop"]), values))
    return f"candidate #{document['number']} of {document['study']}\n{columns(rows)}\n\n{columns(segments)}"


def _objectives(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in scores.items())


# --- a study --------------------------------------------------------------------------------------------------------


def _study(study: StudyStore) -> dict[str, Any]:
    summary, record = study.summary(), study.record
    reasons: Counter[str] = Counter()
    seconds = 0.0
    for one in study.scores("search", items=False):
        seconds += one.cost.seconds
        if one.failure is not None:
            reasons[one.failure] += 1
    shown = dict.fromkeys(
        [n for n in (summary.final, summary.best_number) if n is not None]
        + [one.candidate.number for one in study.scores("selection", items=False)]
    )
    return {
        "summary": asdict(summary) | {"state": state_of(summary)},
        "objective": record.objective,
        "direction": record.direction,
        "seed": record.seed,
        "settings": _settings(record.settings),
        "versions": dict(record.versions),
        "pool": dict(record.pool),
        "evaluations": evaluations(study, summary.asked),
        "candidates": [_line(study, candidate, summary) for candidate in shown],
        "front": front_document(front_of(study)),
        "diagnostics": _diagnostics(study),
        "failures": dict(reasons.most_common()),
        "evaluation_seconds": seconds,
        "events": [asdict(event) for event in study.events(limit=EVENTS)],
        "artifacts": [asdict(artifact) for artifact in study.artifacts()],
    }


def _settings(sections: Any) -> dict[str, Any]:
    import json

    return {name: json.loads(text) for name, text in sections.items()}


def _line(study: StudyStore, candidate: int, summary: Summary) -> dict[str, Any]:
    one = study.candidates((candidate,))[0]
    objective = study.record.objective
    found: dict[str, float] = {}
    for split, each in scores_of(study, candidate).items():
        if each.score is not None:
            found[split] = each.score[objective]
    if one.request.ranges is not None:  # what it scored on these items says little beside the others
        found.pop("search", None)
    if candidate == summary.best_number and summary.best is not None:
        found["search"] = summary.best
    return {"number": candidate, "origin": one.origin, "generation": one.generation, **found}


def _diagnostics(study: StudyStore) -> dict[str, float]:
    """The strategy's own numbers, from the newest snapshot and the turns since."""
    from evomerge import config
    from evomerge.replay import restore
    from evomerge.study import record as records

    settings = config.stored(study.record.settings)
    strategy = records.strategy_of(settings, records.problem_of(study.record))
    state, seq = restore(strategy, study)
    return strategy.diagnostics(state) if seq >= 0 else {}


def _study_text(document: dict[str, Any]) -> str:
    summary, settings = document["summary"], document["settings"]
    rows = [
        ("status", f"{summary['state']}, last written {when(summary['updated'])}"),
        ("evaluations", _counts(summary, document["evaluations"], settings["budget"]["evaluations"])),
        ("strategy", f"{settings['strategy']['name']}, seed {document['seed']}, window {settings['window']}"),
        ("fitness", f"{settings['fitness']['name']}, {document['direction']} {document['objective']}"),
        ("pool", ", ".join(document["pool"])),
        ("cost", f"{duration(document['evaluation_seconds'])} of building and scoring"),
    ]
    if summary["lease"] is not None and summary["state"] == "running":
        rows.append(("driver", f"process {summary['lease']['pid']} on {summary['lease']['host']}"))
    parts = [f"{summary['name']}\n{columns(rows)}"]
    if document["candidates"]:
        parts.append(_candidates(document["candidates"], summary))
    if document["front"]:
        parts.append(front_text(document["front"]))
    if document["diagnostics"]:
        parts.append(columns([(name, f"{value:.4g}") for name, value in document["diagnostics"].items()]))
    if document["failures"]:
        listed = list(document["failures"].items())
        lines = [f"{count} x {reason}" for reason, count in listed[:FAILURES]]
        more = [f"... and {len(listed) - FAILURES} other reasons"] if len(listed) > FAILURES else []
        parts.append("\n".join(["failures", *lines, *more]))
    if document["events"]:
        events = [(when(one["at"]), one["level"], one["kind"], _one_line(one)) for one in document["events"]]
        parts.append(f"last events\n{columns(events)}")
    return "\n\n".join(parts)


def _counts(summary: dict[str, Any], asked: float, budget: int) -> str:
    flying = summary["asked"] - summary["told"]
    if asked != summary["asked"]:
        return f"{worth(asked)} of {budget} (in {summary['told']} results, {flying} asked and not told)"
    more = [f"{summary['failed']} failed"] if summary["failed"] else []
    more += [f"{flying} asked and not told"] if flying else []
    return f"{summary['told']} of {budget}{f' ({chr(44).join(more)})' if more else ''}"


def _candidates(found: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    rows = [("CANDIDATE", "SEARCH", "SELECTION", "REPORT", "GENERATION", "ORIGIN", "")]
    for one in found:
        marks = [
            word for word, which in (("final", "final"), ("best", "best_number")) if summary[which] == one["number"]
        ]
        values = (number(one.get(split)) for split in ("search", "selection", "report"))
        rows.append((f"#{one['number']}", *values, str(one["generation"]), one["origin"], ", ".join(marks)))
    return columns(rows)


def _one_line(event: dict[str, Any]) -> str:
    text = event["text"].replace("\n", " ")
    return f"#{event['number']}: {text}" if event["number"] is not None else text
