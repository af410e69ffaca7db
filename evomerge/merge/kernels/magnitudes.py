"""Counting differences by magnitude, for thresholds without a sort."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import uint32, uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.choices import magnitudes, store_bins, subtracted
from evomerge.merge.kernels.lanes import WIDTH, Address, Vector, load, store_floats
from evomerge.merge.kernels.memory import Addresses, Codes, Stored, address
from evomerge.merge.tensorfile import Array

Counts = NDArray[np.int64]

BINS = 1 << 16
"""A bin is the upper half of a magnitude's float32 pattern (whose sign bit is 0), then 1 if its lower half is not 0.

Bins are in the order of their magnitudes, and even ones hold a single value: differences of bfloat16 numbers mostly
fall into those.
"""
_STEP = 64 * WIDTH
"""Elements whose bins are held before they are counted."""


def count(base: tuple[Array, str], other: tuple[Array, str], counts: Counts) -> None:
    """Add the magnitudes of ``other - base``, arrays as `STORED` holds them, to ``counts``, (BINS,)."""
    bins = np.empty(_STEP, dtype=np.uint16)
    size = base[0].size
    for first, part in Stored.of([base, other]).in_vectors():
        real = min(part.arrays[0].size, size - first)
        _count(part.addresses, part.codes, part.sizes, real, bins, address(bins), counts)


def count_within(base: tuple[Array, str], other: tuple[Array, str], upper: int, counts: Counts) -> None:
    """Of those whose pattern's upper half is ``upper``, add the lower halves to ``counts``, (65536,)."""
    found = np.empty(_STEP, dtype=np.uint32)
    size = base[0].size
    for first, part in Stored.of([base, other]).in_vectors():
        real = min(part.arrays[0].size, size - first)
        _count_within(part.addresses, part.codes, part.sizes, real, found, address(found), upper, counts)


@njit(nogil=True)
def _sizes(sources: Addresses, codes: Codes, sizes: Addresses, at: int) -> Vector:
    base = load(codes[0], sources[0] + uint64(at) * sizes[0])
    other = load(codes[1], sources[1] + uint64(at) * sizes[1])
    return magnitudes(subtracted(other, base))


@njit(nogil=True, cache=True)
def _count(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    size: int,
    bins: NDArray[np.uint16],
    place: Address,
    counts: Counts,
) -> None:
    """``place`` is the address of ``bins``, (_STEP,). Vectors reach past ``size``, what is counted does not."""
    for first in range(0, size, _STEP):
        stop = min(first + _STEP, size)
        for at in range(first, stop, WIDTH):
            store_bins(_sizes(sources, codes, sizes, at), uint64(place) + uint64(2 * (at - first)))
        for i in range(stop - first):
            counts[bins[i]] += 1


@njit(nogil=True, cache=True)
def _count_within(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    size: int,
    found: NDArray[np.uint32],
    place: Address,
    upper: int,
    counts: Counts,
) -> None:
    """``place`` is the address of ``found``, (_STEP,), for patterns."""
    for first in range(0, size, _STEP):
        stop = min(first + _STEP, size)
        for at in range(first, stop, WIDTH):
            store_floats(_sizes(sources, codes, sizes, at), uint64(place) + uint64(4 * (at - first)))
        for i in range(stop - first):
            if found[i] >> uint32(16) == uint32(upper):
                counts[found[i] & uint32(0xFFFF)] += 1
