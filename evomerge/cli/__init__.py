"""The command line: one module for each command, or for two that belong together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from evomerge.cli import check, export, import_mergekit, init, lineage, merge, run, serve_pool, show, status, verify
from evomerge.cli.output import note, say
from evomerge.errors import EvomergeError

EXIT_CODES = """\
[bold]Exit codes[/bold]: [bold]0[/bold] done;
[bold]1[/bold] a defect of evomerge or of a plugin;
[bold]2[/bold] bad input: study file, pool, data, names, options;
[bold]3[/bold] the database refuses, or another driver holds the study;
[bold]4[/bold] the database went away, resume when it is back;
[bold]5[/bold] not as it was: resume refused, or verify found a difference;
[bold]6[/bold] workers or a server cannot be reached, or what may be spent there is spent;
[bold]7[/bold] the study stopped without a result;
[bold]130[/bold] interrupted by Ctrl-C or SIGTERM, can be resumed.
"""

app = typer.Typer(
    name="evomerge",
    help="Search for the best merge of existing models. A study survives any kill and resumes exactly.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"evomerge {version('evomerge')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Options of evomerge itself."""


COMMANDS: tuple[Callable[..., None], ...] = (
    init.init,
    check.check,
    run.run,
    run.resume,
    status.status,
    show.show,
    lineage.lineage,
    verify.verify,
    export.export,
    merge.merge,
    import_mergekit.import_mergekit,
    serve_pool.serve_pool,
    serve_pool.serve_token,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; an expected error becomes one message and its exit code."""
    try:
        app()
    except EvomergeError as error:
        note(f"evomerge: {error}")
        sys.exit(error.exit_code)
