"""What a resolved recipe is: coefficients over the pool (`Table`), or a vector of numbers (`Dense`).

Both engines below speak one protocol, so the builder composes recipes without knowing which it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Noise
from evomerge.merge.layout import Slot
from evomerge.merge.tensorfile import Floats

Row = tuple[str, int, int, tuple[float, ...]]
"""Group, start, stop, and one coefficient per source: the linear combination on that stretch."""

V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)

BLOCK = 65_536
"""Coordinates per step of every long sum. Fixed: sums must not depend on memory or threads."""


class Geometry(Protocol[V_contra]):
    """Inner products, and reading, on one representation."""

    def inner(self, one: V_contra, two: V_contra, part: tuple[str, int, int] | None) -> float:
        """Inner product over one stretch of a group, or over everything."""

    def square(self, one: V_contra) -> float:
        """Inner product of a vector with itself over everything, remembered with the vector."""

    def read(self, vector: V_contra, slot: Slot, start: int, stop: int) -> Floats:
        """Elements ``start:stop`` of a flattened tensor, as a new float32 array."""

    def chunks(self, vector: V_contra, slot: Slot) -> Iterator[tuple[int, NDArray[Any]]]:
        """A tensor's values piece by piece: flat index of the first, and new float32 (or untouched float64) values."""

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
