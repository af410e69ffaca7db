"""Counting differences by magnitude, for thresholds without a sort."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import float32, uint32
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]

BINS = 1 << 16
"""A bin is the upper half of a magnitude's float32 pattern (whose sign bit is 0), then 1 if its lower half is not 0.

Bins are in the order of their magnitudes, and even ones hold a single value: differences of bfloat16 numbers mostly
fall into those.
"""
_STEP = 4096


@njit(nogil=True, cache=True)
def count(base: Floats, other: Floats, counts: Counts) -> None:
    """Add the magnitudes of ``other - base`` to ``counts``, (BINS,)."""
    scratch = np.zeros(_STEP, float32)
    patterns = scratch.view(uint32)
    for start in range(0, base.size, _STEP):
        size = min(_STEP, base.size - start)
        for i in range(size):
            scratch[i] = abs(other[start + i] - base[start + i])
        for i in range(size):
            low = uint32(patterns[i] & uint32(0xFFFF)) != uint32(0)
            counts[((patterns[i] >> uint32(16)) << uint32(1)) | uint32(low)] += 1


@njit(nogil=True, cache=True)
def count_within(base: Floats, other: Floats, upper: int, counts: Counts) -> None:
    """Of those whose pattern's upper half is ``upper``, add the lower halves to ``counts``, (65536,)."""
    scratch = np.zeros(_STEP, float32)
    patterns = scratch.view(uint32)
    for start in range(0, base.size, _STEP):
        size = min(_STEP, base.size - start)
        for i in range(size):
            scratch[i] = abs(other[start + i] - base[start + i])
        for i in range(size):
            if patterns[i] >> uint32(16) == uint32(upper):
                counts[patterns[i] & uint32(0xFFFF)] += 1
