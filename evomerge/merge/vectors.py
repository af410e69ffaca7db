"""What a resolved recipe is: coefficients over the pool (`Table`), or a vector of numbers (`Dense`).

Both engines below speak one protocol, so the builder composes recipes without knowing which it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Noise
from evomerge.merge.device import Device
from evomerge.merge.layout import Slot
from evomerge.merge.tensorfile import Array, Floats

Row = tuple[str, int, int, tuple[float, ...]]
"""Group, start, stop, and one coefficient per source: the linear combination on that stretch."""

V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)

BLOCK = 65_536
"""Coordinates per step of every long sum. Fixed: sums must not depend on memory or threads."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where values of several vectors are written to.

    Attributes:
        arrays: one per vector, flat and of equal length, as `STORED` holds the dtype.
        dtype: safetensors dtype that values are rounded to, to nearest even.
        past: the caches, where it can be: for results that are much larger than those.
    """

    arrays: Sequence[Array]
    dtype: str
    past: bool = False

    @property
    def size(self) -> int:
        """Elements per vector."""
        return len(self.arrays[0])

    def part(self, start: int, stop: int) -> Room:
        """Elements ``start:stop`` of each array."""
        return Room([array[start:stop] for array in self.arrays], self.dtype, self.past)

    def of(self, numbers: Iterable[int]) -> Room:
        """The arrays with these numbers."""
        return Room([self.arrays[number] for number in numbers], self.dtype, self.past)


class Geometry(Protocol[V_contra]):
    """Inner products, and reading, on one representation."""

    def inner(self, one: V_contra, two: V_contra, part: tuple[str, int, int] | None) -> float:
        """Inner product over one stretch of a group, or over everything."""

    def square(self, one: V_contra) -> float:
        """Inner product of a vector with itself over everything, remembered with the vector."""

    def read(self, vector: V_contra, slot: Slot, start: int, stop: int) -> Floats:
        """Elements ``start:stop`` of a flattened tensor, as a new float32 array."""

    def cuts(self, vector: V_contra, slot: Slot) -> Iterator[tuple[int, int]]:
        """The pieces in which it is cheapest to read a tensor, in order."""

    def fill(self, vectors: Sequence[V_contra], slot: Slot, start: int, room: Room) -> None:
        """Write a tensor's elements of several vectors, from ``start`` on, as many as there is room for."""

    def on(self, vector: V_contra, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """Elements ``start:stop`` of a flattened tensor as a floating torch tensor on a device. Read only."""

    def nbytes(self, vector: V_contra) -> int:
        """Memory the vector takes."""


class Engine(Geometry[V], Protocol):
    """Vector arithmetic on one representation."""

    def member(self, source: str) -> V:
        """A pool member's vector."""

    def combine(self, sources: Sequence[V], rows: Sequence[Row], noise: Noise | None) -> V:
        """Linear combination of the sources, row by row, plus noise. Rows tile every group."""


def angle(engine: Geometry[V], one: V, two: V, part: tuple[str, int, int] | None) -> float | None:
    """Angle in radians between two vectors, over one stretch or everything; ``None`` if one of them is zero there."""
    if part is None:
        scale = engine.square(one) * engine.square(two)
    else:
        scale = engine.inner(one, one, part) * engine.inner(two, two, part)
    if not scale > 0.0:
        return None
    return math.acos(min(1.0, max(-1.0, engine.inner(one, two, part) / math.sqrt(scale))))


def put(values: Floats, out: Array, dtype: str) -> None:
    """Write float32 values into an array, rounded to nearest even in a safetensors dtype."""
    if dtype == "F32":
        np.copyto(out, values)
        return
    from evomerge.merge.kernels.weighted import weighted_sums

    weighted_sums([(values, "F32")], np.ones((1, 1)), [out], dtype)


def dot(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]], scratch: NDArray[np.float64]) -> float:
    """Inner product in float64: exact products of float32, summed pairwise in fixed blocks, no threads.

    ``scratch`` is (2, up to `BLOCK`), overwritten.
    """
    if len(one) <= BLOCK:
        first, second = scratch[:, : len(one)]
        first[:], second[:] = one, two  # converting both first is twice as fast as a product of mixed precision
        return float(np.add.reduce(np.multiply(first, second, out=first)))
    return math.fsum(
        dot(one[start : start + BLOCK], two[start : start + BLOCK], scratch) for start in range(0, len(one), BLOCK)
    )
