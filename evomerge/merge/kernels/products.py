"""Inner products of stored numbers, of all pairs at once, in blocks of fixed size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined] # numba exports it without saying so
from numpy import uint8, uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.lanes import (
    WIDTH,
    Address,
    added,
    load,
    load_doubles,
    multiplied,
    pointer,
    store_doubles,
    widened,
)
from evomerge.merge.kernels.memory import Addresses, Codes, Stored, address, aligned
from evomerge.merge.tensorfile import Array

Sums = NDArray[np.float64]

_SPAN = 8 * WIDTH
"""Elements of each source that are converted at a time, and then meet one another in the nearest cache."""
_DOUBLE = uint64(8)


def add_products(sources: Sequence[tuple[Array, str]], start: int, block: int, sums: Sums) -> None:
    """Add to ``sums``, (blocks, pairs), the products of sources ``i >= j``, pair ``i (i + 1) / 2 + j``.

    Element ``e`` of the flat sources (as `STORED` holds them, with their dtypes) lies in block ``(start + e) //
    block``. Sums are in float64, so that products are exact, in an order that depends on nothing but where the first
    element and the block begin.
    """
    stored = Stored.of(sources)
    near = aligned(len(stored.arrays) * _SPAN, 8)
    lanes = np.empty((sums.shape[1], WIDTH))
    _add_products(
        stored.addresses,
        stored.codes,
        stored.sizes,
        len(stored.arrays[0]),
        start,
        block,
        sums,
        lanes,
        np.empty(8 * WIDTH, np.uint8),
        address(near),
    )


@njit(nogil=True, cache=True)
def _add_products(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    count: int,
    start: int,
    block: int,
    sums: Sums,
    lanes: Sums,
    pad: NDArray[np.uint8],
    scratch: int,
) -> None:
    """``scratch`` is the address of ``_SPAN`` float64 per source; ``lanes`` are (pairs, WIDTH)."""
    near = uint64(scratch)
    at = 0
    while at < count:
        row = (start + at) // block
        stop = min(count, (row + 1) * block - start)
        for pair in range(sums.shape[1]):
            for lane in range(WIDTH):
                lanes[pair, lane] = 0.0
        while at < stop:
            size = min(_SPAN, stop - at)
            for k in range(sources.size):
                _convert(
                    codes[k],
                    sources[k] + uint64(at) * sizes[k],
                    sizes[k],
                    size,
                    near + uint64(k * _SPAN) * _DOUBLE,
                    pad,
                )
            _multiply(near, sources.size, size, uint64(lanes.ctypes.data))
            at += size
        for pair in range(sums.shape[1]):
            for lane in range(WIDTH):
                sums[row, pair] += lanes[pair, lane]


@njit(nogil=True)
def _convert(code: int, source: Address, item: Address, size: int, near: Address, pad: NDArray[np.uint8]) -> None:
    """``size`` numbers to float64, with zeros up to a whole vector."""
    for at in range(0, size, WIDTH):
        here = source + uint64(at) * item
        if at + WIDTH > size:
            rest = int(uint64(size - at) * item)
            last = carray(pointer(here), (rest,), uint8)
            for byte in range(pad.size):
                pad[byte] = last[byte] if byte < rest else uint8(0)
            here = uint64(pad.ctypes.data)
        store_doubles(widened(load(code, here)), near + uint64(at) * _DOUBLE)


@njit(nogil=True)
def _multiply(near: Address, sources: int, size: int, lanes: Address) -> None:
    """Add the products of all pairs, lane by lane."""
    pair = lanes
    for i in range(sources):
        for j in range(i + 1):
            one, two = near + uint64(i * _SPAN) * _DOUBLE, near + uint64(j * _SPAN) * _DOUBLE
            total = load_doubles(pair)
            for at in range(0, size, WIDTH):
                on = uint64(at) * _DOUBLE
                total = added(total, multiplied(load_doubles(one + on), load_doubles(two + on)))
            store_doubles(total, pair)
            pair += uint64(WIDTH) * _DOUBLE
