"""Inner products of all pool members over any stretch of coordinates, without reading the pool each time.

Every group is cut into fixed blocks; each block's K x K matrix of inner products is computed once (float64, in an order
that depends on nothing but the pool) and kept as running sums. A stretch is then a difference of two sums plus the
ragged ends, which are read from the files. On disk the sums lie under the pool's identity.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.parallel import run
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import BLOCK

Matrix = NDArray[np.float64]

_MAGIC = b"evomerge gram 2\n"
_PIECE = 16
"""Blocks that a thread reads before it takes more."""
_REMEMBERED = 8192
"""Ragged ends kept in memory: two per breakpoint of the population."""


class Gram:
    """Block Gram matrix of a pool; ``cache`` is a folder for the running sums, shared by the workers of a machine.

    It is computed by ``threads``, which change no byte.

    Raises:
        PoolError: a member holds NaN or infinity.
    """

    def __init__(self, pool: ModelPool, cache: Path | None = None, threads: int = 1) -> None:
        self._pool = pool
        self._threads = threads
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
        matrix: Matrix = self._products(group, start, stop).sum(axis=0)
        matrix.flags.writeable = False
        return matrix

    def _products(self, group: str, start: int, stop: int) -> Matrix:
        """Inner products over what a stretch has of each block, blocks x K x K."""
        from evomerge.merge.kernels.products import add_products

        count = len(self._pool.sources)
        first = start // BLOCK
        sums = np.zeros((-(-stop // BLOCK) - first, count * (count + 1) // 2))
        at = start
        while at < stop:
            slot = self._pool.slot_at(group, at)
            last = min(stop, slot.offset + slot.size)
            stored = [
                (source.stored(slot.name, at - slot.offset, last - slot.offset), source.entries[slot.name].dtype)
                for source in self._pool.checkpoints.values()
            ]
            add_products(stored, at - first * BLOCK, BLOCK, sums)
            at = last
        if not np.isfinite(sums).all():
            self._pool.check_finite()
            raise PoolError(
                f"inner products of the pool overflow in group {group!r}, {start}:{stop}; rescale its models"
            )
        found = np.empty((len(sums), count, count))
        rows, columns = np.tril_indices(count)
        found[:, rows, columns] = found[:, columns, rows] = sums
        return found

    def _blocks(self, size: int) -> int:
        return size // BLOCK

    def _shape(self) -> tuple[int, int, int]:
        rows = sum(self._blocks(group.size) + 1 for group in self._pool.groups)
        return rows, len(self._pool.sources), len(self._pool.sources)

    def _running_sums(self) -> Matrix:
        """Per group: zero, then the sum up to the end of each whole block."""
        sums = np.zeros(self._shape())
        for group, part in self._by_group(sums).items():
            whole = (len(part) - 1) * BLOCK
            work = [partial(self._products, group, low, high) for low, high in chunks(whole, _PIECE * BLOCK)]
            row = 1
            with closing(run(work, self._threads)) as found:
                for products in found:
                    part[row : row + len(products)] = products
                    row += len(products)
            np.cumsum(part, axis=0, out=part)
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
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(_MAGIC + _digest(body) + body)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
