"""Matrices of low rank in memory: what an adapter adds to one tensor of its base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.tensorfile import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Factors:
    """``scale * B @ A`` (LoRA, Hu et al. 2021): ``B`` is (out, r), ``A`` (r, in), both float32 and C-contiguous.

    ``out`` is the first axis of the base's tensor as it is stored, ``in`` all others flattened. A rank of 0 is zero.
    """

    B: Floats
    A: Floats
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of columns of ``B`` and of rows of ``A``."""
        return len(self.A)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the product."""
        return self.B.shape[0], self.A.shape[1]

    def values(self, start: int, stop: int) -> Floats:
        """Elements ``start:stop`` of the flattened product, as a new array; the same values however it is cut."""
        from evomerge.merge.kernels.lowrank import product

        out = np.empty(stop - start, dtype=np.float32)
        if len(out):
            columns = self.A.shape[1]
            first, last = start // columns, -(-stop // columns)
            product(self.B[first:last] * np.float32(self.scale), self.A, start - first * columns, out)
        return out


def rounded(b: Doubles, a: Doubles) -> Factors:
    """The product of two float64 matrices, in float32."""
    return Factors(np.ascontiguousarray(b, dtype=np.float32), np.ascontiguousarray(a, dtype=np.float32))


def total(terms: Sequence[tuple[float, Factors]]) -> Factors | None:
    """``sum_i c_i s_i B_i A_i`` exactly, to the rounding of ``c_i s_i B_i``: the ranks add up.

    Terms of rank 0 or coefficient 0 are left out; ``None`` if nothing is left.
    """
    used = [(c * term.scale, term) for c, term in terms if term.rank and c * term.scale != 0.0]
    if not used:
        return None
    b = np.concatenate([c * term.B.astype(np.float64) for c, term in used], axis=1)
    return Factors(b.astype(np.float32), np.concatenate([term.A for _, term in used]))


def stretch(whole: Factors, start: int, stop: int) -> Iterator[Factors]:
    """Terms whose sum has the elements ``start:stop`` of the flattened product, and is zero everywhere else.

    One term of the same rank for the rows that are whole, and one of rank 1 for each row that is cut.
    """
    columns = whole.A.shape[1]
    first, last = -(-start // columns), stop // columns
    if first < last:
        b = np.zeros_like(whole.B)
        b[first:last] = whole.B[first:last]
        yield Factors(b, whole.A, whole.scale)
    for row in sorted({start // columns, stop // columns}):
        low, high = max(start - row * columns, 0), min(stop - row * columns, columns)
        if low < high and high - low < columns:
            b = np.zeros((whole.B.shape[0], 1), dtype=np.float32)
            a = np.zeros((1, columns), dtype=np.float32)
            b[row] = 1.0
            a[0, low:high] = whole.values(row * columns + low, row * columns + high)
            yield Factors(b, a)
