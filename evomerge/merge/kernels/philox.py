"""Philox4x32-10, a counter-based random generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

Its 128 bits are a function of a counter of four 32-bit words and a key of two, so any stretch of a stream can be asked
for. Vectorised it is five times as fast as numpy's Philox4x64.

A stream of 16-bit numbers is drawn plane by plane: first the highest bit of 4096 numbers, then the next, and so on. So
which of them are below a limit takes one operation per plane on sixty-four at once, and no plane below the limit's last
bit: a fair coin costs one bit a number and not sixteen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy import uint16, uint32, uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.choices import and_lacking, no_bits, or_lacking, store_bits
from evomerge.merge.kernels.lanes import Address

LANES = 32
"""Counters per block of `fill`."""
BLOCK = 128 * LANES
"""Numbers of a stream that are drawn together: a plane of them is a block."""
PLANES = 16
_WORDS = BLOCK // 64
"""As many as there are lanes in a vector: a block's plane is one."""

_MULTIPLIERS = uint64(0xD2511F53), uint64(0xCD9E8D57)
_BUMPS = uint32(0x9E3779B9), uint32(0xBB67AE85)
_ROUNDS = 10


Word = Any
"""uint32, as numba infers."""


@njit(inline="always")
def philox(counter: tuple[Word, ...], key: tuple[Word, ...]) -> tuple[Word, ...]:
    """The four random words of a counter (four words) under a key (two)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        one, two = _MULTIPLIERS[0] * uint64(c0), _MULTIPLIERS[1] * uint64(c2)
        c0, c2 = uint32(two >> uint64(32)) ^ c1 ^ k0, uint32(one >> uint64(32)) ^ c3 ^ k1
        c1, c3 = uint32(two), uint32(one)
        k0, k1 = uint32(k0 + _BUMPS[0]), uint32(k1 + _BUMPS[1])
    return c0, c1, c2, c3


@njit(nogil=True, cache=True)
def fill(out: NDArray[np.uint32], first: int, stream: NDArray[np.uint32]) -> None:
    """Blocks ``first``, ``first + 1``, ... into ``out``, (blocks, 4, LANES).

    ``stream``, (4,), is the upper half of the counter, whose lower half counts, and the key. Word ``j`` of counter
    ``i`` of a block is at ``[j, i]``, so that whole vectors are stored.
    """
    c2, c3, k0, k1 = stream
    for block in range(out.shape[0]):
        words = out[block]
        at = uint64(first + block) * uint64(LANES)
        c0, c1 = uint32(at), uint32(at >> uint64(32))  # LANES divides 2^32: all lanes of a block share c1
        for i in range(LANES):
            drawn = philox((uint32(c0 + uint32(i)), c1, c2, c3), (k0, k1))
            words[0, i], words[1, i], words[2, i], words[3, i] = drawn


@njit(nogil=True, cache=True)
def numbers(out: NDArray[np.uint16], first: int, stream: NDArray[np.uint32]) -> None:
    """16-bit numbers ``BLOCK first`` and on of a stream, into ``out``, (blocks, BLOCK)."""
    planes = np.empty((PLANES, 4, LANES), np.uint32)
    words = planes.view(np.uint64).reshape(PLANES, _WORDS)
    out[:] = uint16(0)
    for block in range(out.shape[0]):
        fill(planes, PLANES * (first + block), stream)
        for plane in range(PLANES):
            for word in range(_WORDS):
                for lane in range(64):
                    one = uint16((words[plane, word] >> uint64(lane)) & uint64(1))
                    out[block, 64 * word + lane] |= one << uint16(PLANES - 1 - plane)


@njit(nogil=True, cache=True)
def below(
    out: Address, blocks: int, first: int, stream: NDArray[np.uint32], limit: int, planes: NDArray[np.uint32]
) -> None:
    """Which numbers from ``BLOCK first`` on are below a limit in 1..65535, as bits at an address, BLOCK bits a block.

    ``planes`` is (PLANES, 4, LANES), for what is drawn.
    """
    drawn = uint64(planes.ctypes.data)
    last = PLANES
    while not (limit >> (PLANES - last)) & 1:
        last -= 1
    for block in range(blocks):
        fill(planes[:last], PLANES * (first + block), stream)
        less = no_bits(uint64(0))
        for plane in range(last - 1, -1, -1):  # where numbers equal the limit in a plane, lower ones decide
            place, one = drawn + uint64(plane * BLOCK // 8), (limit >> (PLANES - 1 - plane)) & 1
            less = or_lacking(less, place) if one else and_lacking(less, place)
        store_bits(less, out + uint64(block * BLOCK // 8))
