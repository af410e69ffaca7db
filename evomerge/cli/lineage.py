"""``evomerge lineage``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli.databases import Db, Name, opened_study
from evomerge.cli.output import Json, emit, say
from evomerge.cli.pictures import Picture, check_picture, paint
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.lineage import Family


def lineage(
    name: Name = None,
    *,
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", "-c", min=0, metavar="N", help="Default: the final candidate, else the best."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=1, metavar="N", help="Only so many generations back.")
    ] = None,
    picture: Picture = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """The family tree of a candidate, back to the pool."""
    from evomerge.lineage import draw, trace, tree_text

    check_picture(picture)
    with opened_study(db, name) as study:
        summary = study.summary()
        chosen = next((one for one in (candidate, summary.final, summary.best_number) if one is not None), None)
        if chosen is None:
            raise ConfigError(f"study {summary.name!r} has no scored candidate yet; name one with --candidate")
        family = trace(study, chosen, depth=depth)
    if picture is not None:
        paint(picture, lambda file: draw(family, file))
    if json:
        emit(_document(family) | {"study": summary.name, "picture": picture})
    else:
        say(tree_text(family))


def _document(family: Family) -> dict[str, Any]:
    shares = family.influence()
    return {
        "candidate": family.root,
        "objective": family.objective,
        "relatives": [
            {
                "number": number,
                "generation": one.candidate.generation,
                "origin": one.candidate.origin,
                "parents": list(one.candidate.parents),
                "members": list(one.members),
                "digest": one.candidate.recipe.digest,
                "search": one.value,
                "influence": shares[number],
            }
            for number, one in family.relatives.items()
        ],
        "beyond": sorted(family.beyond),
    }
