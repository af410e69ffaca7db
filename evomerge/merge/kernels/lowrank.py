"""The product of two thin matrices, a stretch of it at a time."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import float32
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STEP = 2048


@njit(nogil=True, cache=True)
def product(b: Floats, a: Floats, start: int, out: Floats) -> None:
    """Elements ``start : start + len(out)`` of the flattened ``b @ a``, each ``sum_k b[i, k] a[k, j]`` left to right.

    ``b`` is (m, r), ``a`` (r, n), both C-contiguous. A matrix library is as fast, but its sums depend on how many rows
    it is given.
    """
    rank, columns = a.shape
    at = 0
    while at < out.size:
        row, first = (start + at) // columns, (start + at) % columns
        part = out[at : at + min(columns - first, out.size - at, _STEP)]
        last = first + part.size
        part[:] = float32(0.0)
        fours = rank // 4 * 4
        for k in range(0, fours, 4):  # a quarter of the loads and stores, the same sum
            b0, b1, b2, b3 = b[row, k], b[row, k + 1], b[row, k + 2], b[row, k + 3]
            a0, a1, a2, a3 = a[k, first:last], a[k + 1, first:last], a[k + 2, first:last], a[k + 3, first:last]
            for j in range(part.size):
                part[j] = part[j] + b0 * a0[j] + b1 * a1[j] + b2 * a2[j] + b3 * a3[j]
        for k in range(fours, rank):
            bk, ak = b[row, k], a[k, first:last]
            for j in range(part.size):
                part[j] += bk * ak[j]
        at += part.size
