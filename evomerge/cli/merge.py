"""``evomerge merge``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.cli.kinds import Adapter, Mergekit, Rank, one_kind
from evomerge.cli.output import Json, columns, duration, emit, note, save, say, size
from evomerge.cli.progress import copied
from evomerge.cli.stopping import INTERRUPTED, interruptible
from evomerge.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from evomerge.recipes.job import Job

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="Recipe files, mergekit YAMLs, or recipe.json of earlier exports.", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="The folder (or YAML) to write; of several recipes, the folder in which each gets one of its name.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float64, float32, float16 or bfloat16. Default: the file's, else as in the pool."),
]
ShardSize = Annotated[
    str, typer.Option("--shard-size", metavar="SIZE", help="Largest file of weights, such as 500MB or 5GB.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="Default: as there are processors.")]
Pool = Annotated[
    Path | None,
    typer.Option("--pool", metavar="FILE", help="Study or recipe file that says where a recipe.json's models are."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]


def merge(
    files: Files,
    *,
    out: Out = None,
    dtype: Dtype = None,
    shard_size: ShardSize = "5GB",
    threads: Threads = None,
    pool: Pool = None,
    mergekit: Mergekit = False,
    adapter: Adapter = False,
    rank: Rank = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Merge models as a recipe file says, without a search: weights, config, tokenizer and model card into a folder."""
    from evomerge.recipes import job

    shard_bytes = _bytes(shard_size)
    one_kind(mergekit, adapter, rank)
    outs = _outs(files, out, ".yml" if mergekit else "", dry_run)
    jobs = job.load(files, pool, dtype)
    for one in jobs:
        for text in one.warnings:
            note(f"{one.source.path}: {text}")
    if mergekit and not dry_run:
        _save(jobs, outs)
    elif adapter:
        _adapt(jobs, outs, rank, threads, dry_run)
    elif not dry_run:
        _build(jobs, outs, shard_bytes, threads)
    else:
        _check(jobs)
    if json:
        documents = [_document(one, folder, adapter) for one, folder in zip(jobs, outs, strict=True)]
        emit(documents[0] if len(documents) == 1 else {"merges": documents})
        return
    for one, folder in zip(jobs, outs, strict=True):
        say(_text(one, adapter) if dry_run else f"wrote {folder}: recipe {one.resolved.recipe.digest}")


def _save(jobs: list[Job], outs: list[Path]) -> None:
    """Write YAMLs for mergekit; all of them or none."""
    from evomerge.recipes.mergekit.writing import exported

    texts = []
    for one in jobs:
        resolved = one.resolved
        found = exported(one.builder(), resolved.recipe, resolved.ancestors, one.settings, dtype=one.dtype)
        for text in found.notes:
            note(f"{one.source.path}: {text}")
        texts.append(found.text)
    for path, text in zip(outs, texts, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, text)


def _adapt(jobs: list[Job], outs: list[Path], rank: int | None, threads: int | None, dry_run: bool) -> None:
    """Write adapters, or only see whether they can be."""
    from evomerge.merge.adapter_export import AdapterJob, check_adapter, export_adapters
    from evomerge.recipes.card import card

    with _leaving_nothing():
        for one, folder in zip(jobs, outs, strict=True):
            builder = one.builder(threads)
            text = card(one, builder, folder.name, library="peft")
            merge = one.resolved
            task = AdapterJob(merge.recipe, merge.ancestors, folder, text, one.dtype or "float32", rank)
            check_adapter(builder, task)
            if not dry_run:
                note(f"{folder}: {export_adapters(builder, [task])[0].text}")


def _check(jobs: list[Job]) -> None:
    """Find out what no look at the files alone tells: impossible combinations of values."""
    for one in jobs:
        one.builder().resolve(one.resolved.recipe, one.resolved.ancestors)


def _build(jobs: list[Job], outs: list[Path], shard_bytes: int, threads: int | None) -> None:
    """Write models, those of the same pool in one pass over it."""
    from evomerge.merge.export import Order, export_many
    from evomerge.recipes.card import card
    from evomerge.recipes.job import together

    folders = dict(zip(map(id, jobs), outs, strict=True))
    lots = together(jobs)
    started = time.monotonic()
    with _leaving_nothing(), copied(sum(one.writes for one in jobs)) as progress:
        for lot in lots:
            builder = lot[0].builder(threads)
            orders = []
            for one in lot:
                folder, merge = folders[id(one)], one.resolved
                orders.append(Order(merge.recipe, merge.ancestors, folder, card(one, builder, folder.name)))
            export_many(builder, orders, dtype=lot[0].dtype, shard_bytes=shard_bytes, progress=progress)
    seconds = time.monotonic() - started
    moved = sum(lot[0].reads for lot in lots) + sum(one.writes for one in jobs)
    note(f"{size(moved)} read and written in {duration(seconds)} ({size(moved / seconds)}/s)")


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """An interrupt ends the command in good order."""
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        note("interrupted; nothing was left behind")
        raise typer.Exit(INTERRUPTED) from None


def _bytes(text: str) -> int:
    """The number of bytes that ``500MB`` means."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmg]?)b?\s*", text, re.IGNORECASE)
    number = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    if number < 1:
        raise ConfigError(f"--shard-size is {text!r}; give a size such as 500MB or 5GB")
    return int(number)


def _outs(files: list[Path], out: Path | None, suffix: str, dry_run: bool) -> list[Path]:
    """The folder of each result, or its file if it has a suffix."""
    if out is None:
        if not dry_run:
            raise ConfigError("nothing says where to write; give a folder with --out, or --dry-run to write nothing")
        out = Path()
    names = [file.stem for file in files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            f"two recipes are called {min(twice)}, and so would their folders be; rename one of the files"
        )
    outs = [out / f"{name}{suffix}" for name in names] if len(files) > 1 else [out]
    for one in outs:  # before anything is read
        if not dry_run and one.exists() and (not one.is_dir() or any(one.iterdir())):
            raise ExportError(f"{one} exists and is not empty; choose another folder or remove it")
    return outs


def _document(one: Job, folder: Path, adapter: bool) -> dict[str, Any]:
    from evomerge.recipes import describe

    return {
        "file": one.source.path,
        "folder": folder.absolute(),
        "digest": one.resolved.recipe.digest,
        "pool": one.places,
        "merges": {name: describe.headline(recipe, one.resolved.names) for name, recipe in one.resolved.parts},
        "parameters": {name: describe.lines(recipe, one.resolved, one.pool) for name, recipe in one.resolved.parts},
        "dtype": one.dtype,
        "bytes_read": one.reads,
        "bytes_written": None if adapter else one.writes,
        "warnings": one.warnings,
    }


def _text(one: Job, adapter: bool) -> str:
    """What ``--dry-run`` says of a merge."""
    from evomerge.recipes import describe

    rows = [("pool", ", ".join(f"{name} ({place})" for name, place in one.places.items()))]
    for name, recipe in one.resolved.parts:
        rows.append((name, describe.headline(recipe, one.resolved.names)))
        for line in describe.lines(recipe, one.resolved, one.pool):
            rows.append(("", f"{line.parameter} {line.model} = {line.value}: {line.where}"))
    kept = one.pool.copied
    rows += [
        ("merged", f"{one.pool.size:,} parameters in {len(one.pool.layout.slots)} tensors"),
        ("not merged", f"{len(kept)} tensors, copied from {one.pool.reference}" if kept else "none"),
        ("reads", size(one.reads)),
        ("writes", f"an adapter of {one.pool.base}" if adapter else _writes(one)),
        ("digest", one.resolved.recipe.digest),
    ]
    return f"{one.source.path}\n{columns(rows, indent='  ')}"


def _writes(one: Job) -> str:
    return f"{size(one.writes)}, {one.dtype or 'dtypes as in ' + one.pool.reference}"
