"""``evomerge init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge import plugins
from evomerge.cli.output import Json, emit, note, say
from evomerge.errors import ConfigError, PluginError

FILE = "study.yaml"
MODELS = "models"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder, made if need be.")] = Path(),
    template: Annotated[str, typer.Option("--template", help="Which study to start from.")] = "digits",
    seed: Annotated[int, typer.Option("--seed", min=0, help="For the models that the template trains.")] = 0,
    json: Json = False,
) -> None:
    """Write a study that runs as it is: a commented study.yaml, and the models that it merges."""
    write = plugins.load("templates", template)
    for name in (FILE, MODELS):
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} is already there and is not overwritten; choose another folder")
    note(f"writing models into {folder / MODELS} ...")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = write(folder, seed)
        (folder / FILE).write_text(text, encoding="utf-8")
    except ImportError as error:
        raise PluginError(f"template {template!r} cannot make its models; {plugins.extra_for(error)}") from error
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}; choose another folder") from error
    if json:
        emit({"file": folder / FILE, "models": folder / MODELS})
    else:
        say(f"wrote {folder / FILE}. Next: evomerge check {folder / FILE}, then evomerge run {folder / FILE}")
