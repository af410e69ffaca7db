"""What operators find out about a pool, kept on disk so that it is found out once: by content, for all workers.

An entry is a safetensors file named after the digest of its key: what was asked, and the content of the tensors that it
depends on. It is a pure function of that key and never lossy, so with or without it the bytes of a merge are the same.
What was not used for longest goes when there is too much.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.tensorfile import NATIVE, STORED, TensorFile
from evomerge.merge.writer import Planned, write_file

Arrays = dict[str, NDArray[Any]]

SPARE = 2_000_000_000
"""Bytes of disk that are left free for what matters more than a cache."""

_HEADER = 1024
"""Bytes of a file beside its arrays, at most."""


_LIMIT = "EVOMERGE_CACHE_GB"
_DEFAULT = 32.0
_STEP = 16
"""A worker looks at the folder after it has written the limit's share of this: others may have written, too."""
_RECENT = 3600.0
"""Seconds for which an entry's time of use is not noted again: noting it costs more than asking for it."""


class PoolCache:
    """Named arrays by key in a ``folder``; without a folder nothing is kept. Processes may share it.

    It takes at most ``limit`` bytes (default: what `disk_limit` says), and of each further process that writes at the
    same time a sixteenth of that.

    Raises:
        PoolError: the default is asked for, and the environment has no number.
    """

    def __init__(self, folder: Path | None, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = disk_limit() if limit is None else limit
        self._left = 0
        self._lock = Lock()

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
            nbytes = _HEADER + sum(array.nbytes for array in found.values())
            if nbytes <= self._limit:
                self._make_room(self._folder, nbytes)
                _save(path, found)
        return found

    def _make_room(self, folder: Path, nbytes: int) -> None:
        """See to it that so many bytes more are within the limit."""
        with self._lock:
            self._left -= nbytes
            if self._left < 0:
                self._left = max(self._limit // _STEP - nbytes, 0)
                _forget(folder, self._limit - nbytes - self._left)


def disk_limit() -> int:
    """Bytes of disk for what is kept: ``$EVOMERGE_CACHE_GB`` (default 32; 0 keeps nothing).

    Raises:
        PoolError: it is no number.
    """
    said = os.environ.get(_LIMIT) or str(_DEFAULT)
    try:
        found = float(said)
    except ValueError:
        found = -1.0
    if not 0.0 <= found < math.inf:
        raise PoolError(f"the environment variable {_LIMIT} is {said!r}; give the GB that kept statistics may take")
    return int(found * 1e9)


def _forget(folder: Path, most: int) -> None:
    """Remove what was not used for longest until at most so many bytes are left."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another process has just removed it
                stat = entry.stat()
                found.append((stat.st_mtime_ns, stat.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
            total -= size


def _load(path: Path) -> Arrays | None:
    try:
        used = path.stat().st_mtime
        file = TensorFile(path)
        found = {name: file.raw(name).reshape(entry.shape) for name, entry in file.entries.items()}
    except (OSError, PoolError):
        return None
    if time.time() - used > _RECENT:
        with suppress(OSError):
            os.utime(path)
    return found


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
