"""Pictures that commands draw into files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.output import note
from evomerge.errors import ConfigError

KINDS = (".png", ".svg", ".pdf")

Picture = Annotated[
    Path | None, typer.Option("--picture", metavar="FILE", help="Draw it into a .png, .svg or .pdf file as well.")
]


def check_picture(picture: Path | None) -> None:
    """Refuse a file of another kind before anything is read.

    Raises:
        ConfigError: naming the kinds there are.
    """
    if picture is not None and picture.suffix not in KINDS:
        raise ConfigError(f"cannot draw a {picture.suffix or 'nameless'} file; end {picture} in {', '.join(KINDS)}")


def paint(picture: Path, draw: Callable[[Path], None]) -> None:
    """Draw it, and say so.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        draw(picture)
    except OSError as error:
        raise ConfigError(f"cannot write {picture}: {error.strerror}; name a file in a folder that is there") from error
    note(f"drew {picture}")
