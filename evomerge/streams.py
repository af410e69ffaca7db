"""Named random streams: nothing random is ever saved, because everything random can be asked for again.

A stream is a Philox counter-based generator whose key is (study seed, name) and whose counter starts at ``number``,
so that each candidate owns 2^192 draws that depend on nothing that happened before.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np


@cache
def _word(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def stream(seed: int, number: int, name: str = "candidate") -> np.random.Generator:
    """The random stream of candidate ``number`` (or of any other counted thing called ``name``)."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, _word(name)], dtype=np.uint64)
    counter = np.array([0, 0, 0, number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
