"""``evomerge import-mergekit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.output import note, save, say


def import_mergekit(
    file: Annotated[Path, typer.Argument(help="A mergekit YAML.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The recipe file to write. Default: print it."),
    ] = None,
) -> None:
    """Turn a mergekit YAML into a recipe file that builds the same model."""
    from evomerge.recipes import file as recipe_file
    from evomerge.recipes.mergekit.reading import imported

    found = imported(recipe_file.text_of(file), file, Path().absolute() if out is None else out.absolute().parent)
    for text in found.notes:
        note(f"{file}: {text}")
    if out is None:
        say(found.text.rstrip())
        return
    save(out, found.text)
    say(f"wrote {out}. Next: evomerge merge {out} --dry-run")
