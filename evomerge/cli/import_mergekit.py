"""``evomerge import-mergekit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.output import note, say
from evomerge.errors import ExportError


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

    if out is not None and out.exists():
        raise ExportError(f"{out} exists and is not overwritten; give another name or remove it")
    found = imported(recipe_file.text_of(file), file, Path().absolute() if out is None else out.absolute().parent)
    for text in found.notes:
        note(f"{file}: {text}")
    if out is None:
        say(found.text.rstrip())
        return
    try:
        out.write_text(found.text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from error
    say(f"wrote {out}. Next: evomerge merge {out} --dry-run")
