"""Arrays as kernels take them that read several dtypes: by address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.kernels.lanes import CODES, WIDTH
from evomerge.merge.tensorfile import Array

Addresses = NDArray[np.uint64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """Flat arrays of equal length, as `STORED` holds them. They must be kept while a kernel uses their addresses.

    Attributes:
        arrays: the arrays themselves.
        codes: kernels' names of their dtypes.
    """

    arrays: Sequence[Array]
    codes: Codes

    @classmethod
    def of(cls, sources: Sequence[tuple[Array, str]]) -> Stored:
        """Arrays with their safetensors dtypes; those that lie at odd places are copied."""
        arrays = [np.require(array, requirements=("C", "A")) for array, _ in sources]
        return cls(arrays, np.array([CODES[dtype] for _, dtype in sources], dtype=np.int64))

    @property
    def addresses(self) -> Addresses:
        """Where they begin."""
        return np.array([address(array) for array in self.arrays], dtype=np.uint64)

    @property
    def sizes(self) -> Addresses:
        """Bytes per element."""
        return np.array([array.itemsize for array in self.arrays], dtype=np.uint64)

    def part(self, start: int, stop: int) -> Stored:
        """Elements ``start:stop``."""
        return Stored([array[start:stop] for array in self.arrays], self.codes)

    def in_vectors(self) -> list[tuple[int, Stored]]:
        """In two parts of whole vectors, and where each begins: zeros fill the last one."""
        count = self.arrays[0].size
        whole = count - count % WIDTH
        parts = [(0, self.part(0, whole))]
        if whole < count:
            missing = WIDTH - (count - whole)
            ends = [np.concatenate([array[whole:], np.zeros(missing, array.dtype)]) for array in self.arrays]
            parts.append((whole, Stored(ends, self.codes)))
        return parts


def aligned(count: int, item: int) -> Array:
    """New memory for so many numbers of so many bytes, which begins with a cache line.

    Kernels get it from outside, because numba frees an array that it only knows by address.
    """
    memory = np.empty(count * item + 64, np.uint8)
    return memory[-address(memory) % 64 :][: count * item]


def address(array: Array) -> int:
    """Where an array begins."""
    found: int = array.__array_interface__["data"][0]
    return found
