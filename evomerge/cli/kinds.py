"""What a merge may be written as, besides a model: options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from evomerge.errors import ConfigError

Mergekit = Annotated[
    bool, typer.Option("--mergekit", help="Write a mergekit YAML that builds the model, and not the model.")
]
Adapter = Annotated[bool, typer.Option("--adapter", help="Write a PEFT adapter of the pool's base, and not the model.")]
Rank = Annotated[
    int | None,
    typer.Option("--rank", min=1, metavar="N", help="Largest rank of the adapter. Default: as exactness takes."),
]


def one_kind(mergekit: bool, adapter: bool, rank: int | None) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: naming them.
    """
    if mergekit and adapter:
        raise ConfigError("--mergekit and --adapter write different things; give one of them")
    if rank is not None and not adapter:
        raise ConfigError("--rank is that of an adapter; give --adapter, too")
