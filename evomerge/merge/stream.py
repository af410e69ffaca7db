"""Models that are neither a table of coefficients nor held in memory: computed piece by piece when they are read.

A `Stream` is what a `TensorOperator` makes of its sources, or a weighted sum of such. It is read like a file, so
operators nest; each level reads the levels below it again, which is the price of not holding a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from evomerge.candidate import Noise
from evomerge.merge.device import Device, weighted
from evomerge.merge.layout import Slot
from evomerge.merge.noise import normal
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import CHUNK
from evomerge.merge.tensorfile import Array, Floats, chunks
from evomerge.merge.vectors import BLOCK, Geometry, Room, Row, dot, put

Bounds = tuple[int, int]

_first = itemgetter(1)


class Stream(ABC):
    """A model over a pool's layout, read piece by piece by several threads at once.

    ``key`` tells its content apart from that of any other stream over the same pool.
    """

    key: str
    square: float | None = None

    @abstractmethod
    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """Elements ``start:stop`` of a flattened tensor, as a new float32 array; the same values however it is cut."""

    def stored(self, slot: Slot, start: int, stop: int) -> tuple[Array, str]:
        """The same elements before they are converted, as `STORED` holds them, and their dtype. Read only."""
        return self.read(slot, start, stop), "F32"

    def on(self, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """The same elements as a floating tensor on a device. Read only."""
        return device.put(self.read(slot, start, stop))

    def cuts(self, slot: Slot) -> Iterator[Bounds]:
        """The pieces in which it is cheapest to read a tensor, in order."""
        return chunks(slot.size, CHUNK)

    def prepare(self, slot: Slot) -> None:  # noqa: B027 - most streams have nothing to prepare
        """Compute now what reading any piece of a tensor would have to wait for."""

    def forget(self) -> None:  # noqa: B027 - most streams keep nothing
        """Let go of all that was only kept while it was read."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes where it is not being read, about."""
        return 1000

    def fingerprint(self, slot: Slot) -> str:
        """Names the content of one tensor."""
        return f"{self.key}:{slot.name}"


class Member(Stream):
    """A pool member, read from its files."""

    def __init__(self, pool: ModelPool, source: str) -> None:
        self.key = source
        self._source = pool.checkpoints[source]

    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """From its files."""
        return self._source.floats(slot.name, start, stop)

    def stored(self, slot: Slot, start: int, stop: int) -> tuple[Array, str]:
        """From its files."""
        return self._source.stored(slot.name, start, stop), self._source.entries[slot.name].dtype

    def on(self, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """From the device's memory, if there is room for it."""
        return device.stored(self._source, slot.name, start, stop)

    def fingerprint(self, slot: Slot) -> str:
        """By content, wherever the files are."""
        return self._source.fingerprint(slot.name)


class Held(Stream):
    """A vector of another engine: a table of coefficients, or a dense vector."""

    def __init__(self, engine: Geometry[Any], vector: Any, key: str) -> None:
        self.key = key
        self._engine = engine
        self._vector = vector

    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """From the engine."""
        return self._engine.read(self._vector, slot, start, stop)

    def on(self, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """From the engine."""
        return self._engine.on(self._vector, device, slot, start, stop)


class Weighted(Stream):
    """A linear combination of streams, row by row, plus noise. Rows tile every group."""

    def __init__(self, key: str, sources: Sequence[Stream], rows: Sequence[Row], noise: Noise | None) -> None:
        self.key = key
        self._sources = sources
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row[0], []).append(row)
        self._noise = noise

    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """The sum over the sources with a coefficient there, left to right."""
        from evomerge.merge.kernels.weighted import weighted_sums

        out = np.empty(stop - start, dtype=np.float32)
        for low, high, terms in self._terms(slot, start, stop):
            stored = [source.stored(slot, low, high) for source, _ in terms]
            weighted_sums(stored, np.array([[c for _, c in terms]]), [out[low - start : high - start]], "F32")
        if self._noise is not None:
            out += self._drawn(self._noise, slot, start, stop)
        return out

    def on(self, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """The same on a device; noise is drawn by the processor."""
        import torch

        out = torch.zeros(stop - start, dtype=torch.float32, device=device.device)
        for low, high, terms in self._terms(slot, start, stop):
            if terms:
                read = [(source.on(device, slot, low, high), c) for source, c in terms]
                out[low - start : high - start] = weighted(read)
        if self._noise is not None:
            out += device.put(self._drawn(self._noise, slot, start, stop))
        return out

    def prepare(self, slot: Slot) -> None:
        """What its sources have to prepare."""
        for source in self._sources:
            source.prepare(slot)

    def forget(self) -> None:
        """What its sources keep."""
        for source in self._sources:
            source.forget()

    @property
    def nbytes(self) -> int:
        """Of its rows."""
        return 1000 + sum(len(rows) * (200 + 40 * len(self._sources)) for rows in self._rows.values())

    def _terms(self, slot: Slot, start: int, stop: int) -> Iterator[tuple[int, int, list[tuple[Stream, float]]]]:
        """Which sources have which coefficients where in elements ``start:stop``."""
        rows = self._rows[slot.group]
        at = bisect_right(rows, slot.offset + start, key=_first) - 1
        while at < len(rows) and rows[at][1] < slot.offset + stop:
            _, first, last, coefficients = rows[at]
            terms = [(source, c) for source, c in zip(self._sources, coefficients, strict=True) if c != 0.0]
            yield max(first - slot.offset, start), min(last - slot.offset, stop), terms
            at += 1

    @staticmethod
    def _drawn(noise: Noise, slot: Slot, start: int, stop: int) -> Floats:
        drawn = normal(noise, slot.group, slot.offset + start, slot.offset + stop)
        drawn *= noise.scale
        return drawn


class StreamEngine:
    """What the builder asks of every engine, for `Stream` s: nothing is computed before it is read."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._products = np.empty((2, BLOCK), dtype=np.float64)

    def member(self, source: str) -> Stream:
        """A pool member."""
        return Member(self._pool, source)

    def inner(self, one: Stream, two: Stream, part: tuple[str, int, int] | None) -> float:
        """Inner product in float64 over fixed blocks; reads both."""
        parts = [(group.name, 0, group.size) for group in self._pool.groups] if part is None else [part]
        total = 0.0
        for group, start, stop in parts:
            for low, high in chunks(stop - start, BLOCK):
                total += dot(
                    span(self._pool, one.read, group, start + low, start + high),
                    span(self._pool, two.read, group, start + low, start + high),
                    self._products,
                )
        return total

    def square(self, one: Stream) -> float:
        """Squared norm, computed once per stream."""
        if one.square is None:
            one.square = self.inner(one, one, None)
        return one.square

    def read(self, vector: Stream, slot: Slot, start: int, stop: int) -> Floats:
        """Elements of a tensor."""
        return vector.read(slot, start, stop)

    def cuts(self, vector: Stream, slot: Slot) -> Iterator[Bounds]:
        """Where the stream says."""
        return vector.cuts(slot)

    def fill(self, vectors: Sequence[Stream], slot: Slot, start: int, room: Room) -> None:
        """One vector after the other, cut where it is cheapest."""
        stop = start + room.size
        for vector, out in zip(vectors, room.arrays, strict=True):
            for first, last in vector.cuts(slot):
                low, high = max(first, start), min(last, stop)
                if low < high:
                    put(vector.read(slot, low, high), out[low - start : high - start], room.dtype)

    def on(self, vector: Stream, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """Elements of a tensor on a device."""
        return vector.on(device, slot, start, stop)

    def nbytes(self, vector: Stream) -> int:
        """Bytes it holds: it computes what it gives."""
        return vector.nbytes


def span(pool: ModelPool, read: Callable[[Slot, int, int], Floats], group: str, start: int, stop: int) -> Floats:
    """Coordinates ``start:stop`` of a group, tensor by tensor."""
    out = np.empty(stop - start, dtype=np.float32)
    at = start
    while at < stop:
        slot = pool.slot_at(group, at)
        last = min(stop, slot.offset + slot.size)
        out[at - start : last - start] = read(slot, at - slot.offset, last - slot.offset)
        at = last
    return out


def held(engine: Geometry[Any], vector: Any, key: str) -> Stream:
    """Any vector as a stream."""
    return vector if isinstance(vector, Stream) else Held(engine, vector, key)
