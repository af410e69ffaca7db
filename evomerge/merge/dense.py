"""Whole float32 vectors: for small pools, and for mutated ancestry, which coefficients cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evomerge.candidate import Noise
from evomerge.merge.device import Device
from evomerge.merge.layout import Slot
from evomerge.merge.noise import normal
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import BLOCK, Room, Row, dot, put


class Dense:
    """A read-only flat float32 vector over all groups, and its squared norm once known."""

    __slots__ = ("square", "values")

    def __init__(self, values: Floats) -> None:
        values.flags.writeable = False
        self.values = values
        self.square: float | None = None


class DenseEngine:
    """Arithmetic on `Dense`: sums in float32, coefficients rounded to float32 at use, inner products in float64."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._starts = pool.layout.starts
        longest = min(BLOCK, pool.size)
        self._products = np.empty((2, longest), dtype=np.float64)
        self._terms = np.empty(longest, dtype=np.float32)

    def member(self, source: str) -> Dense:
        """A pool member's vector, read from its files."""
        return Dense(self._pool.vector(source))

    def combine(self, sources: Sequence[Dense], rows: Sequence[Row], noise: Noise | None) -> Dense:
        """``sum_j c_j theta_j`` left to right; a lone coefficient 1 copies its source bit for bit."""
        out = np.empty(self._pool.size, dtype=np.float32)
        for group, start, stop, coefficients in rows:
            used = [(c, source.values) for c, source in zip(coefficients, sources, strict=True) if c != 0.0]
            first, last = self._starts[group] + start, self._starts[group] + stop
            for low in range(first, last, BLOCK):
                high = min(low + BLOCK, last)
                self._sum(out[low:high], [(c, values[low:high]) for c, values in used])
        if noise is not None:
            self._mutate(out, noise)
        return Dense(out)

    def _mutate(self, out: Floats, noise: Noise) -> None:
        for group in self._pool.groups:
            for start, stop in chunks(group.size, BLOCK):
                drawn = normal(noise, group.name, start, stop)
                drawn *= noise.scale
                out[self._starts[group.name] + start : self._starts[group.name] + stop] += drawn

    def _sum(self, out: Floats, terms: list[tuple[float, Floats]]) -> None:
        if not terms:
            out.fill(0.0)
            return
        (c, values), *others = terms
        if c == 1.0:
            np.copyto(out, values)
        else:
            np.multiply(values, c, out=out)  # c becomes float32 here
        for c, values in others:
            out += np.multiply(values, c, out=self._terms[: len(out)])

    def inner(self, one: Dense, two: Dense, part: tuple[str, int, int] | None) -> float:
        """Inner product over one stretch of a group, or over the whole vectors."""
        if part is None:
            return dot(one.values, two.values, self._products)
        group, start, stop = part
        low, high = self._starts[group] + start, self._starts[group] + stop
        return dot(one.values[low:high], two.values[low:high], self._products)

    def square(self, one: Dense) -> float:
        """Squared norm, computed once per vector."""
        if one.square is None:
            one.square = self.inner(one, one, None)
        return one.square

    def read(self, vector: Dense, slot: Slot, start: int, stop: int) -> Floats:
        """Elements of a tensor, copied."""
        at = self._starts[slot.group] + slot.offset
        return vector.values[at + start : at + stop].copy()

    def cuts(self, vector: Dense, slot: Slot) -> Iterator[tuple[int, int]]:
        """The tensor as a whole."""
        yield 0, slot.size

    def fill(self, vectors: Sequence[Dense], slot: Slot, start: int, room: Room) -> None:
        """The vectors' values, rounded."""
        at = self._starts[slot.group] + slot.offset + start
        for vector, out in zip(vectors, room.arrays, strict=True):
            put(vector.values[at : at + len(out)], out, room.dtype)

    def on(self, vector: Dense, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """The vector's values."""
        at = self._starts[slot.group] + slot.offset
        return device.put(vector.values[at + start : at + stop])

    def nbytes(self, vector: Dense) -> int:
        """Bytes of the vector."""
        return vector.values.nbytes
