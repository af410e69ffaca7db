"""Golomb-Rice codes of where signs are: a block's places as gaps, each followed by its sign, bit after bit.

A gap ``g`` is ``g >> rice`` ones, a zero, and its ``rice`` low bits; the highest bit of a byte comes first. The last
gap leads to the block's end and has no sign. Nothing is read or written beyond the arrays, whatever they hold.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Signs = NDArray[np.int8]

MOST = 15
"""Largest ``rice``: blocks have at most 2^16 entries."""


@njit(nogil=True, cache=True)
def size_in_bits(signs: Signs, rice: int) -> int:
    """How long the code is."""
    bits, last = 0, -1
    for at in range(signs.size):
        if signs[at] != 0:
            bits += ((at - last - 1) >> rice) + rice + 2
            last = at
    return bits + ((signs.size - last - 1) >> rice) + rice + 1


@njit(nogil=True, cache=True)
def encode(signs: Signs, rice: int, out: Bytes) -> None:
    """Write the code of ``signs`` (-1, 0 and 1) to ``out``, which has as many bytes as that takes, all 0."""
    bit, last = 0, -1
    for at in range(signs.size + 1):
        if at == signs.size or signs[at] != 0:
            gap = at - last - 1
            for _ in range(gap >> rice):
                out[bit >> 3] |= np.uint8(128 >> (bit & 7))
                bit += 1
            bit += 1
            for low in range(rice - 1, -1, -1):
                out[bit >> 3] |= np.uint8(((gap >> low) & 1) << (7 - (bit & 7)))
                bit += 1
            if at < signs.size:
                out[bit >> 3] |= np.uint8((signs[at] < 0) << (7 - (bit & 7)))
                bit += 1
            last = at


@njit(nogil=True, cache=True)
def decode(code: Bytes, rice: int, signs: Signs) -> bool:
    """Set ``signs``, all 0, from their code; ``False`` where it is none of so many."""
    bit, place, end = 0, -1, 8 * code.size
    while True:
        gap = 0
        while bit < end and (code[bit >> 3] >> (7 - (bit & 7))) & 1:
            gap += 1
            bit += 1
        bit += 1
        if bit + rice > end:
            return False
        for _ in range(rice):
            gap = gap << 1 | ((code[bit >> 3] >> (7 - (bit & 7))) & 1)
            bit += 1
        place += gap + 1
        if place >= signs.size:
            return bool(place == signs.size and bit + 8 > end)
        if bit >= end:
            return False
        signs[place] = -1 if (code[bit >> 3] >> (7 - (bit & 7))) & 1 else 1
        bit += 1
