"""Coefficient space: a model as a table of segments x pool members, whatever its ancestry.

Exact to rounding in float64, a few kilobytes each, and built in one pass over the pool. Noise has no coefficients:
a recipe with noise in its ancestry needs the dense engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Noise
from evomerge.errors import RecipeError
from evomerge.merge.device import Device, weighted
from evomerge.merge.gram import Gram
from evomerge.merge.layout import Slot
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import CHUNK
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import Room, Row

Bounds = NDArray[np.int64]
Coefficients = NDArray[np.float64]
Part = tuple[Bounds, Coefficients]
"""Breakpoints of a group, S + 1 with both ends, and coefficients S x K in the order of ``pool.sources``."""


class Table:
    """One part per group, and the squared norm once known."""

    __slots__ = ("parts", "square")

    def __init__(self, parts: dict[str, Part]) -> None:
        self.parts = parts
        self.square: float | None = None


class TableEngine:
    """Arithmetic on `Table`. The Gram matrix is made when the first angle is asked for."""

    def __init__(self, pool: ModelPool, gram_cache: Path | None, threads: int = 1) -> None:
        self._pool = pool
        self._gram_cache = gram_cache
        self._threads = threads

    @cached_property
    def _gram(self) -> Gram:
        return Gram(self._pool, self._gram_cache, self._threads)

    def member(self, source: str) -> Table:
        """A single row with a single 1 per group."""
        unit = np.zeros((1, len(self._pool.sources)))
        unit[0, self._pool.sources.index(source)] = 1.0
        return Table({group.name: (np.array([0, group.size]), unit) for group in self._pool.groups})

    def combine(self, sources: Sequence[Table], rows: Sequence[Row], noise: Noise | None) -> Table:
        """Exact composition; neighbours with equal coefficients are joined.

        Raises:
            RecipeError: there is noise.
        """
        if noise is not None:
            raise RecipeError("a mutated recipe has no coefficient table; set merge.mode to 'dense' or 'auto'")
        return Table({group.name: self._compose(group.name, sources, rows) for group in self._pool.groups})

    def _compose(self, group: str, sources: Sequence[Table], rows: Sequence[Row]) -> Part:
        mine = [row for row in rows if row[0] == group]
        ends = np.array([0, *(row[2] for row in mine)])
        bounds = np.unique(np.concatenate([ends, *(source.parts[group][0] for source in sources)]))
        starts = bounds[:-1]
        coefficients = np.array([row[3] for row in mine]).reshape(len(mine), len(sources))[_which(ends, starts)]
        total = np.zeros((len(starts), len(self._pool.sources)))
        for column, source in enumerate(sources):
            inner_bounds, inner = source.parts[group]
            total += coefficients[:, column, None] * inner[_which(inner_bounds, starts)]
        return _join(bounds, total)

    def inner(self, one: Table, two: Table, part: tuple[str, int, int] | None) -> float:
        """Inner product through the pool's Gram matrix."""
        if part is None:
            return math.fsum(self.inner(one, two, (group.name, 0, group.size)) for group in self._pool.groups)
        group, start, stop = part
        (bounds_one, rows_one), (bounds_two, rows_two) = one.parts[group], two.parts[group]
        cuts = np.unique(np.concatenate([[start, stop], bounds_one, bounds_two]))
        cuts = cuts[(cuts >= start) & (cuts <= stop)]
        left, right = rows_one[_which(bounds_one, cuts[:-1])], rows_two[_which(bounds_two, cuts[:-1])]
        pieces = zip(left, right, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        return math.fsum(_bilinear(a, self._gram.inner(group, low, high), b) for a, b, low, high in pieces)

    def square(self, one: Table) -> float:
        """Squared norm, computed once per table."""
        if one.square is None:
            one.square = self.inner(one, one, None)
        return one.square

    def read(self, vector: Table, slot: Slot, start: int, stop: int) -> Floats:
        """Elements of a tensor, each stretch the sum over the members with a coefficient there."""
        out = np.empty(stop - start, dtype=np.float32)
        self.fill([vector], slot, start, Room([out], "F32"))
        return out

    def cuts(self, vector: Table, slot: Slot) -> Iterator[tuple[int, int]]:
        """Pieces that stay in a core's cache."""
        return chunks(slot.size, CHUNK)

    def fill(self, vectors: Sequence[Table], slot: Slot, start: int, room: Room) -> None:
        """One pass over the members for all vectors; a lone 1 gives the member's own values, float64 included."""
        from evomerge.merge.kernels.weighted import weighted_sums

        for low, high, weights in _stretches(vectors, slot, start, start + room.size):
            used = weights.any(axis=0)
            sources = [self._pool.checkpoints[self._pool.sources[j]] for j in np.flatnonzero(used)]
            stored = [(source.stored(slot.name, low, high), source.entries[slot.name].dtype) for source in sources]
            place = room.part(low - start, high - start)
            weighted_sums(stored, weights[:, used], place.arrays, place.dtype, place.past)

    def on(self, vector: Table, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """Each stretch the sum over the members with a coefficient there; a lone 1 in the member's own dtype."""
        import torch

        parts = []
        for low, high, (weights,) in _stretches([vector], slot, start, stop):
            members = [self._pool.checkpoints[self._pool.sources[j]] for j in np.flatnonzero(weights)]
            read = [device.stored(member, slot.name, low, high) for member in members]
            zeros = torch.zeros(high - low, device=device.device)
            parts.append(weighted(list(zip(read, weights[weights != 0.0].tolist(), strict=True))) if read else zeros)
        return parts[0] if len(parts) == 1 else torch.cat([part.to(torch.float32) for part in parts])

    def nbytes(self, vector: Table) -> int:
        """Bytes of bounds and coefficients, with the objects around them."""
        return 400 + sum(200 + bounds.nbytes + rows.nbytes for bounds, rows in vector.parts.values())


def _stretches(vectors: Sequence[Table], slot: Slot, start: int, stop: int) -> Iterator[tuple[int, int, Coefficients]]:
    """Where coefficients change within elements ``start:stop`` of a tensor, and what they are: vectors x members."""
    parts = [vector.parts[slot.group] for vector in vectors]
    low, high = slot.offset + start, slot.offset + stop
    cuts = {low, high}
    for bounds, _ in parts:
        cuts.update(bounds[bounds.searchsorted(low, "right") : bounds.searchsorted(high, "left")].tolist())
    for one, two in pairwise(sorted(cuts)):
        rows = [coefficients[bounds.searchsorted(one, "right") - 1] for bounds, coefficients in parts]
        yield one - slot.offset, two - slot.offset, np.stack(rows)


def _which(bounds: Bounds, points: Bounds) -> NDArray[np.intp]:
    """Index of the segment that each point lies in."""
    return np.searchsorted(bounds, points, side="right") - 1


def _bilinear(left: Coefficients, matrix: Coefficients, right: Coefficients) -> float:
    """``left^T matrix right`` without BLAS, whose threads may reorder sums."""
    return float((left[:, None] * matrix * right).sum())


def _join(bounds: Bounds, rows: Coefficients) -> Part:
    keep = np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])
    return np.append(bounds[:-1][keep], bounds[-1]), rows[keep]
