"""``evomerge serve-pool`` and ``evomerge serve-token``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.output import Json, emit, note, say
from evomerge.cli.stopping import interruptible

Tokens = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE", help="Answer only holders of its tokens; see serve-token."),
]


def serve_pool(
    file: Annotated[Path, typer.Argument(help="The server file.", show_default=False)],
    *,
    host: Annotated[str, typer.Option("--host", help="Where to listen; any but this machine's own needs --tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = 8750,
    tokens: Tokens = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            "--audit",
            metavar="FILE",
            help="The log of who had what scored, and count of quotas. Default: FILE.audit",
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Speak https, with this PEM certificate.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.")] = None,
    grace: Annotated[
        int, typer.Option("--grace", min=1, metavar="SECONDS", help="How long requests may finish after SIGTERM.")
    ] = 30,
    json: Json = False,
) -> None:
    """Score merges of a pool for others, who send recipes and get scores, and never see a weight."""
    from evomerge.serve import opened
    from evomerge.serve.ledger import Ledger
    from evomerge.serve.run import Address, listen, server
    from evomerge.serve.service import Service
    from evomerge.serve.tokens import Tokens as Holders

    address = Address(host, port, certificate, key)
    address.check(tokens is not None)
    read = opened.read(file)
    holders = None if tokens is None else Holders(tokens)
    note(f"checking models and data of {file} ...")
    pool = opened.open_pool(read.settings, read.root)
    with listen(address) as socket:
        from evomerge.serve.app import application

        at = Address(host, socket.getsockname()[1], certificate, key)
        limits = pool.settings.limits
        ledger = Ledger(audit or file.with_name(f"{file.name}.audit"), limits.evaluations, limits.items)
        service = Service(pool, ledger)
        try:
            runs = server(application(service, holders), at, grace=grace)
            if json:
                emit({"url": at.url, "members": pool.offer.members, "items": pool.offer.items})
            else:
                say(f"serving {', '.join(pool.offer.members)} at {at.url}; Ctrl-C ends it")
            _flush()
            with interruptible():
                runs.run(sockets=[socket])
        except KeyboardInterrupt:
            note("ended")
        finally:
            service.close()


def _flush() -> None:
    """Let those who read our output through a pipe know that we are ready."""
    import sys

    sys.stdout.flush()


def serve_token(
    name: Annotated[str, typer.Argument(help="Whom it is for; the audit log has this name.", show_default=False)],
    *,
    tokens: Annotated[Path, typer.Option("--tokens", metavar="FILE", help="Made if need be; keeps a hash of it only.")],
    evaluations: Annotated[
        int | None, typer.Option("--evaluations", min=1, metavar="N", help="How many it is good for.")
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", min=1, metavar="N", help="How many items it is good for, in all.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a token for serve-pool and print it, once. Take its name out of the file to end it."""
    from evomerge.serve.tokens import add

    token = add(tokens, name, evaluations, items)
    if json:
        emit({"name": name, "token": token, "file": tokens.absolute()})
    else:
        note(f"the token of {name}; it is shown this once, and {tokens} keeps a hash of it:")
        say(token)
