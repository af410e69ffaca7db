"""Inner products of all pool members over any stretch of coordinates, without reading the pool each time.

Every group is cut into fixed blocks; each block's K x K matrix of inner products is computed once (float64, pairwise
sums, no threads, so the bytes depend on nothing but the pool) and kept as running sums. A stretch is then a difference
of two sums plus the ragged ends, which are read from the files. On disk the sums lie under the pool's identity.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.pool import ModelPool
from evomerge.merge.vectors import BLOCK, dot

Matrix = NDArray[np.float64]

_MAGIC = b"evomerge gram 1\n"
_REMEMBERED = 8192
"""Ragged ends kept in memory: two per breakpoint of the population."""


class Gram:
    """Block Gram matrix of a pool; ``cache`` is a folder for the running sums, shared by the workers of a machine.

    Raises:
        PoolError: a member holds NaN or infinity.
    """

    def __init__(self, pool: ModelPool, cache: Path | None = None) -> None:
        self._pool = pool
        self._scratch = np.empty((2, BLOCK), dtype=np.float64)
        self._ragged = lru_cache(maxsize=_REMEMBERED)(self._compute)
        path = None if cache is None else cache / f"gram-{self._key()}.bin"
        sums = None if path is None else self._load(path)
        if sums is None:
            sums = self._running_sums()
            if path is not None:
                _save(path, sums)
        self._sums = self._by_group(sums)

    def inner(self, group: str, start: int, stop: int) -> Matrix:
        """Inner products of the sources, K x K in the order of ``pool.sources``, over ``start:stop`` of a group."""
        first, last = -(-start // BLOCK), stop // BLOCK  # whole blocks inside
        if first >= last:
            return self._ragged(group, start, stop)
        sums = self._sums[group]
        whole: Matrix = sums[last] - sums[first]
        if start < first * BLOCK:
            whole += self._ragged(group, start, first * BLOCK)
        if last * BLOCK < stop:
            whole += self._ragged(group, last * BLOCK, stop)
        return whole

    def _compute(self, group: str, start: int, stop: int) -> Matrix:
        """Inner products over a stretch of any length, from the files."""
        count = len(self._pool.sources)
        total = np.zeros((count, count))
        for low in range(start, stop, BLOCK):
            high = min(low + BLOCK, stop)
            spans = [self._pool.span(source, group, low, high).astype(np.float64) for source in self._pool.sources]
            for i in range(count):
                for j in range(i + 1):
                    total[i, j] += dot(spans[i], spans[j], self._scratch)
        matrix = total + np.tril(total, -1).T
        if not np.isfinite(matrix).all():
            self._pool.check_finite()
            raise PoolError(
                f"inner products of the pool overflow in group {group!r}, {start}:{stop}; rescale its models"
            )
        matrix.flags.writeable = False
        return matrix

    def _blocks(self, size: int) -> int:
        return size // BLOCK

    def _shape(self) -> tuple[int, int, int]:
        rows = sum(self._blocks(group.size) + 1 for group in self._pool.groups)
        return rows, len(self._pool.sources), len(self._pool.sources)

    def _running_sums(self) -> Matrix:
        """Per group: zero, then the sum up to the end of each whole block."""
        sums = np.zeros(self._shape())
        row = 0
        for group in self._pool.groups:
            for block in range(self._blocks(group.size)):
                row += 1
                sums[row] = sums[row - 1] + self._compute(group.name, block * BLOCK, (block + 1) * BLOCK)
            row += 1
        return sums

    def _by_group(self, sums: Matrix) -> dict[str, Matrix]:
        split, row = {}, 0
        for group in self._pool.groups:
            split[group.name] = sums[row : row + self._blocks(group.size) + 1]
            row += self._blocks(group.size) + 1
        return split

    def _key(self) -> str:
        return hashlib.blake2b(f"{BLOCK}:{self._pool.identity}".encode(), digest_size=16).hexdigest()

    def _load(self, path: Path) -> Matrix | None:
        """The stored sums, or ``None`` if they are absent or damaged (they are then computed again)."""
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        shape = self._shape()
        body = stored[len(_MAGIC) + 16 :]
        if len(body) != 8 * int(np.prod(shape)) or stored[: len(_MAGIC) + 16] != _MAGIC + _digest(body):
            return None
        return np.frombuffer(body, dtype="<f8").reshape(shape)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _save(path: Path, sums: Matrix) -> None:
    """Write beside and rename. A full or read-only disk only costs the cache."""
    body = sums.astype("<f8").tobytes()
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_MAGIC + _digest(body) + body)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
