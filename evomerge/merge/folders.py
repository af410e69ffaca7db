"""Folders that are whole or not there, and the one that outlives a run."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import ExportError


def cache_folder() -> Path:
    """What is kept between runs: ``$XDG_CACHE_HOME/evomerge`` or ``~/.cache/evomerge``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomerge"


@contextmanager
def new_folder(out: Path, nbytes: int = 0) -> Iterator[Path]:
    """A folder beside ``out`` to write files into. It is synced to disk and becomes ``out`` when all went well.

    ``nbytes`` is how much will be written at least.

    Raises:
        ExportError: ``out`` exists and is not empty, or the disk refused; nothing is left behind.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is not empty; choose another folder or remove it")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if free < nbytes:
            raise ExportError(f"cannot write {out}: it needs {nbytes:,} bytes, but the disk has {free:,}; make room")
        yield partial
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.replace(out)
        _sync(out.parent)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Force a file to disk, or the names in a folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
