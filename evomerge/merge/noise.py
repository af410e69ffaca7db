"""Random numbers that are never stored, because any stretch of them can be asked for again: mutation noise, and bits.

A coordinate's noise is one of 65,536 equally likely normal quantiles (scaled to unit variance, largest 4.3), picked by
16 bits of a counter-based stream. That is five times as fast as drawing exact normal numbers, and coordinate ``i`` of a
group always uses bits ``16 i : 16 i + 16`` of the group's stream, so how the vector is cut never changes a byte.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Noise
from evomerge.merge.tensorfile import Floats
from evomerge.streams import stream

_PER_COUNT = 16
"""Coordinates per step of the counter: Philox gives 256 bits."""


def normal(noise: Noise, group: str, start: int, stop: int) -> Floats:
    """Coordinates ``start:stop`` of N(0, 1) noise for one group, float32. Multiply by ``noise.scale``."""
    first = start // _PER_COUNT
    bits = cast(np.random.Philox, stream(noise.seed, noise.number, f"noise:{group}").bit_generator)
    if first:
        bits.advance(first)
    words = bits.random_raw(-(-(stop - first * _PER_COUNT) // 4))
    picks = words.astype("<u8", copy=False).view("<u2")[start - first * _PER_COUNT :][: stop - start]
    return _quantiles().take(picks)


@cache
def _quantiles() -> Floats:
    """The table, ascending and symmetric, float32."""
    distribution = NormalDist()
    upper = np.array([distribution.inv_cdf((k + 0.5) / 65_536) for k in range(32_768, 65_536)])
    upper /= np.sqrt(np.mean(upper**2))
    table = np.concatenate([-upper[::-1], upper]).astype(np.float32)
    table.flags.writeable = False
    return table


def uniform_bits(stream: NDArray[np.uint32], start: int, stop: int) -> NDArray[np.uint16]:
    """Elements ``start:stop`` of a stream of 16-bit numbers, from Philox4x32-10."""
    from evomerge.merge.kernels.philox import BLOCK, numbers

    first = start // BLOCK
    found = np.empty((-(-stop // BLOCK) - first, BLOCK), dtype=np.uint16)
    numbers(found, first, stream)
    return found.reshape(-1)[start - first * BLOCK :][: stop - start]


@lru_cache(maxsize=4096)
def bit_stream(seed: int, name: str) -> NDArray[np.uint32]:
    """Four words that tell streams apart, (4,)."""
    return np.frombuffer(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), dtype="<u4")
