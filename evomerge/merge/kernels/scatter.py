"""Adding few numbers to many."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def add_entries(
    places: NDArray[np.uint16], values: NDArray[np.float32], shift: int, scale: np.float32, out: NDArray[np.float32]
) -> None:
    """``out[places + shift] += scale values``; every place occurs once and is inside."""
    for k in range(places.size):
        out[np.int64(places[k]) + shift] += scale * values[k]
