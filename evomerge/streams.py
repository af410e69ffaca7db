"""Named random streams: nothing random is ever saved, because everything random can be asked for again.

A stream is a Philox counter-based generator whose key is (study seed, name) and whose counter starts at ``number``,
so that each candidate owns 2^192 draws that depend on nothing that happened before.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


@cache
def _word(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def stream(seed: int, number: int, name: str = "candidate") -> np.random.Generator:
    """The random stream of candidate ``number`` (or of any other counted thing called ``name``)."""
    counter = np.array([0, 0, 0, number], dtype=np.uint64)
    # numpy's stub names SeedSequence only; its code takes any ISeedSequence
    return np.random.Generator(np.random.Philox(_key(seed, name), counter=counter))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """Hands Philox its key. Given as ``key=``, numpy would ask the system for entropy that nobody uses."""

    def __init__(self, words: tuple[int, int]) -> None:
        self._words = np.array(words, dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> Any:
        """The key, as 64-bit words."""
        return self._words[:n_words].astype(dtype)


@cache
def _key(seed: int, name: str) -> _Key:
    return _Key((seed & 0xFFFFFFFFFFFFFFFF, _word(name)))
