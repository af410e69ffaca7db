"""What commands print: results on stdout, everything else on stderr, and with ``--json`` one document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from evomerge.errors import ExportError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def say(text: str) -> None:
    """Print a result on stdout, as it is."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a remark that is no result on stderr. A terminal's lines are broken between words, indented ones never."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    for line in text.split("\n"):
        console.print(line, soft_wrap=line.startswith("  ") or not console.is_terminal)


def emit(document: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=_plain)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def save(path: Path, text: str) -> None:
    """Write a new text file.

    Raises:
        ExportError: it is there already, or the disk refused.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ExportError(f"{path} exists and is not overwritten; give another name or remove it") from None
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}; choose another place") from error


def columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Rows of text under one another, each column as wide as its widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)


def number(value: float | None) -> str:
    """A score as people read it."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def worth(evaluations: float) -> str:
    """How many whole evaluations some cost: ``12``, or ``12.4`` where parts of them are among them."""
    return str(round(evaluations)) if evaluations == round(evaluations) else f"{evaluations:.1f}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A span of time as people read it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def ago(then: float) -> str:
    """How long ago a time (seconds since the epoch) was."""
    return f"{duration(max(0.0, time.time() - then))} ago" if time.time() - then >= 1 else "just now"


def when(then: float) -> str:
    """A time as date and clock, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))
