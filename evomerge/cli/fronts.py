"""The front of a study with several objectives, as ``evomerge show`` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.cli.output import columns, number

if TYPE_CHECKING:
    from evomerge.history import ParetoFront
    from evomerge.store.port import StudyStore

ROWS = 12


def front_of(study: StudyStore) -> ParetoFront | None:
    """The study's front; None with one objective, or while nothing was scored."""
    from evomerge.history import read_front
    from evomerge.study import record as records

    objectives = records.problem_of(study.record).objectives
    return read_front(study, objectives) if len(objectives) > 1 else None


def front_document(found: ParetoFront | None) -> dict[str, Any] | None:
    """The same as JSON has it."""
    if found is None:
        return None
    names = [one.name for one in found.objectives]
    return {
        "objectives": {one.name: one.direction for one in found.objectives},
        "hypervolume": found.volume,
        "reference": dict(zip(names, found.reference.tolist(), strict=True)),
        "reference_of": "pool members" if found.of_members else "all candidates",
        "candidates": [
            {"number": one, "search": dict(zip(names, row, strict=True))}
            for one, row in zip(found.numbers, found.values.tolist(), strict=True)
        ],
    }


def front_text(document: dict[str, Any]) -> str:
    """The same for people: evenly chosen candidates where there are many."""
    names, found = list(document["objectives"]), document["candidates"]
    corner = ", ".join(f"{name} {number(value)}" for name, value in document["reference"].items())
    head = f"front: {len(found)} candidate{'s' * (len(found) != 1)} that no other beats on every objective\n"
    head += (
        f"hypervolume {document['hypervolume']:.4g}, measured from the worst of {document['reference_of']}: {corner}"
    )
    ways = document["objectives"].values()
    rows = [("CANDIDATE", *(f"{name} ({way})" for name, way in zip(names, ways, strict=True)))]
    places = (
        range(len(found)) if len(found) <= ROWS else [round(i * (len(found) - 1) / (ROWS - 1)) for i in range(ROWS)]
    )
    for one in (found[place] for place in places):
        rows.append((f"#{one['number']}", *(number(one["search"][name]) for name in names)))
    more = f"\n{ROWS} of {len(found)}; --json lists all" if len(found) > ROWS else ""
    return f"{head}\n{columns(rows)}{more}"
