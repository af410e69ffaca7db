"""``evomerge export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.databases import Db, address, folder, opened_study
from evomerge.cli.output import Json, emit, say


def export(
    name: Annotated[str, typer.Argument(help="The study.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not be there yet.", show_default=False)],
    *,
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", "-c", min=0, metavar="N", help="Default: the final candidate, else the best."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float64, float32, float16 or bfloat16. Default: as in the pool.")
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Write a candidate as a folder that Hugging Face loaders take: weights, config, tokenizer, model card."""
    from evomerge.study import card

    url = address(db)
    with opened_study(url, name) as study:
        one = card.export(study, out, candidate=candidate, dtype=dtype, beside=folder(url))
    if json:
        emit({"study": name, "candidate": one.number, "digest": one.recipe.digest, "folder": out.absolute()})
    else:
        say(f"wrote candidate #{one.number} of {name} to {out}; README.md there says what it is")
