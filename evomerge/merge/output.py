"""A file that threads write at any place, past the page cache where the file system allows it.

Direct writes cost no copy and no fresh page, which take longer than a merge does, and leave the pool in the cache.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from evomerge.merge.tensorfile import Array

BLOCK = 4096
"""Direct writes begin at multiples of so many bytes, in the file and in memory, and are as long."""

_DIRECT = getattr(os, "O_DIRECT", 0)


class Output:
    """A new file of ``nbytes``, on disk when it is left without an error.

    Raises:
        OSError: the disk refused.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self._nbytes = nbytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._file = os.open(path, flags | _DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            path.unlink(missing_ok=True)  # some systems make the file before they refuse
            self._file = os.open(path, flags, 0o666)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                os.ftruncate(self._file, self._nbytes)
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, buffer: Array, start: int) -> None:
        """Write from byte ``start`` on; ``buffer`` is of `pages`, and both are multiples of `BLOCK`.

        What lies past the end of the file is cut off at the end.
        """
        rest, direct = buffer.data, bool(_DIRECT)
        while rest:
            try:
                written = os.pwrite(self._file, rest, start)
            except OSError as error:
                if error.errno != errno.EINVAL or not direct:
                    raise
                direct = False  # this disk wants larger blocks
                fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~_DIRECT)
            else:
                rest, start = rest[written:], start + written


def pages(nbytes: int) -> Array:
    """Memory for direct writes: whole pages, bytes."""
    return np.frombuffer(mmap.mmap(-1, nbytes), dtype=np.uint8)
