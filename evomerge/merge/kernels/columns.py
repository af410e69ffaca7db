"""Sums down the columns of a matrix, in float64, row after row: the same however the rows are cut into blocks."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import float64
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def add_products(one: NDArray[np.float32], two: NDArray[np.float32], sums: NDArray[np.float64]) -> None:
    """Add ``sum_r one[r, c] two[r, c]`` to every ``sums[c]``; ``one`` and ``two`` are (rows, columns)."""
    for r in range(one.shape[0]):
        for c in range(sums.size):
            sums[c] += float64(one[r, c]) * float64(two[r, c])
