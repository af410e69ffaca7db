"""``evomerge export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.databases import Db, address, folder, opened_study
from evomerge.cli.kinds import Adapter, Mergekit, Rank, one_kind
from evomerge.cli.output import Json, emit, note, save, say


def export(
    name: Annotated[str, typer.Argument(help="The study.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="The folder (or YAML) to write; it must not be there yet.", show_default=False)
    ],
    *,
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", "-c", min=0, metavar="N", help="Default: the final candidate, else the best."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float64, float32, float16 or bfloat16. Default: as in the pool.")
    ] = None,
    mergekit: Mergekit = False,
    adapter: Adapter = False,
    rank: Rank = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Write a candidate as a folder that Hugging Face loaders take: weights, config, tokenizer, model card."""
    from evomerge.study import card

    one_kind(mergekit, adapter, rank)
    url = address(db)
    with opened_study(url, name) as study:
        if mergekit:
            one, found = card.for_mergekit(study, candidate=candidate, dtype=dtype, beside=folder(url))
            save(out, found.text)
            for text in found.notes:
                note(text)
        elif adapter:
            one, report = card.export_adapter(
                study, out, candidate=candidate, dtype=dtype, rank=rank, beside=folder(url)
            )
            note(report.text)
        else:
            one = card.export(study, out, candidate=candidate, dtype=dtype, beside=folder(url))
    kind = "file" if mergekit else "folder"
    if json:
        emit({"study": name, "candidate": one.number, "digest": one.recipe.digest, kind: out.absolute()})
    else:
        next_step = f"mergekit-yaml {out} DIR builds it" if mergekit else "README.md there says what it is"
        say(f"wrote candidate #{one.number} of {name} to {out}; {next_step}")
