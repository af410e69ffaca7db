"""``evomerge check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evomerge.cli.output import Json, columns, duration, emit, note, number, say, size
from evomerge.cli.run import Budget, File

if TYPE_CHECKING:
    from evomerge.study.setup import Setup


def check(file: File, budget: Budget = None, json: Json = False) -> None:
    """Validate a study file and all that it names, score pool members, and estimate time and memory. Writes nothing."""
    from evomerge import config
    from evomerge.study import drive, trial

    setup = drive.create(config.read(file), budget=budget)
    note("scoring pool members ...")
    document = {
        "study": setup.settings.study,
        "pool": asdict(trial.report_of(setup)),
        "splits": {split: setup.settings.splits.size(split) for split in setup.splits},
        "objectives": [asdict(one) for one in setup.problem.objectives],
        "budget": setup.settings.budget.evaluations,
        "estimate": asdict(trial.estimate(setup, drive.factory_of(setup))),
        "warnings": trial.warnings(setup),
        "versions": dict(setup.record.versions),
    }
    if json:
        emit(document)
    else:
        say(_text(setup, document))


def _text(setup: Setup, document: dict[str, Any]) -> str:
    settings, pool, cost = setup.settings, document["pool"], document["estimate"]
    main = setup.problem.objectives[0]
    workers = 1 if settings.executor.kind == "inline" else settings.executor.workers
    rows = [
        ("strategy", f"{settings.strategy.name}, seed {settings.seed}, window {settings.window}"),
        ("fitness", f"{settings.fitness.name}, {main.direction} {main.name}"),
        ("splits", ", ".join(f"{split} {items} items" for split, items in document["splits"].items())),
        ("dimensions", f"{pool['parameters']:,} parameters: {_groups(pool['groups'])}"),
        ("not merged", f"{len(pool['copied'])} tensors, copied from {pool['reference']}" if pool["copied"] else "none"),
        ("budget", f"{document['budget']:,} evaluations, {settings.finalists} finalists"),
        ("executor", f"{settings.executor.kind}, {workers} worker{'s' if workers > 1 else ''}"),
        ("time", f"about {duration(cost['total_seconds'])} ({duration(cost['seconds'])} per evaluation)"),
        (
            "memory",
            f"up to {size(cost['worker_bytes'])} per worker beside the libraries, and the pool's "
            f"{size(cost['shared_bytes'])}, mapped and shared",
        ),
    ]
    members = [("MODEL", "KIND", "PARAMETERS", "SIZE", "STORED AS", f"{main.name} on search".upper(), "PATH")]
    for one in pool["sources"]:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in one["dtypes"])
        score = number(cost["scores"].get(one["name"], {}).get(main.name))
        about = one["kind"], f"{one['parameters']:,}", size(one["bytes"])
        members.append((one["name"], *about, kinds, score, one["path"]))
    notes = "".join(f"\nwarning: {text}" for text in document["warnings"])
    return f"{document['study']}: ready to run\n{columns(rows)}\n\n{columns(members)}{notes}"


def _groups(groups: list[dict[str, Any]]) -> str:
    shown = ", ".join(f"{group['name']} {group['size']:,}" for group in groups[:8])
    return f"{shown}, ... ({len(groups)} groups)" if len(groups) > 8 else shown
