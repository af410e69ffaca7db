"""What operators find out about a pool, kept on disk so that it is found out once: by content, for all workers.

An entry is a safetensors file named after the digest of its key: what was asked, and the content of the tensors that it
depends on. It is a pure function of that key and never lossy, so with or without it the bytes of a merge are the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.tensorfile import NATIVE, STORED, TensorFile
from evomerge.merge.writer import Planned, write_file

Arrays = dict[str, NDArray[Any]]

SPARE = 2_000_000_000
"""Bytes of disk that are left free for what matters more than a cache."""


class PoolCache:
    """Named arrays by key in a ``folder``; without a folder nothing is kept. Processes may share it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str, compute: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
        """The arrays under a key, read-only, computed (and kept) if they are not there yet.

        A damaged entry is computed again; a read-only disk, or one with little more than `SPARE` left, only costs the
        cache.
        """
        if self._folder is None:
            return dict(compute())
        path = self._folder / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.safetensors"
        found = _load(path)
        if found is None:
            found = {name: np.ascontiguousarray(array) for name, array in compute().items()}
            _save(path, found)
        return found


def _load(path: Path) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        file = TensorFile(path)
        return {name: file.raw(name).reshape(entry.shape) for name, entry in file.entries.items()}
    except PoolError:
        return None


def _save(path: Path, arrays: Arrays) -> None:
    """Write beside and rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.{id(arrays):x}")
    planned = [Planned(name, NATIVE[array.dtype], array.shape) for name, array in arrays.items()]
    planned.sort(key=lambda plan: -STORED[plan.dtype].itemsize)

    def pieces(plan: Planned) -> Iterator[NDArray[Any]]:
        yield arrays[plan.name].reshape(-1)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < SPARE + sum(plan.nbytes for plan in planned):
            return
        write_file(partial, planned, pieces)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
