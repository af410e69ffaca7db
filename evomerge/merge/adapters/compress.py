"""Factors of a smaller rank: the best of factors, nearly the best of whole matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from evomerge.merge.adapters.factors import Doubles, Factors
from evomerge.merge.adapters.operators.svd import balanced, count
from evomerge.merge.blas import one_thread
from evomerge.merge.tensorfile import Floats, chunks

_ROUNDS = 3
_SPARE = 8
_COLUMNS = 1024
"""So many columns of a matrix are converted to float64 at a time."""


class Compressed(NamedTuple):
    """Factors, the squared Frobenius norm of what they leave out, and that of what they stand for."""

    factors: Factors | None
    lost: float
    whole: float

    @property
    def error(self) -> float:
        """The relative error."""
        return math.sqrt(self.lost / self.whole) if self.whole > 0.0 else 0.0


def smaller(one: Factors, rank: int) -> Compressed:
    """The best approximation of that rank, through thin QR factors; the same factors if they are no larger."""
    with one_thread():
        left, inner = np.linalg.qr(one.scale * one.B.astype(np.float64))
        right, outer = np.linalg.qr(one.A.T.astype(np.float64))
        u, s, vt = np.linalg.svd(inner @ outer.T)
        if one.rank <= rank:
            return Compressed(one, 0.0, math.fsum(s**2))
        return _cut(left @ u, s, vt @ right.T, rank, math.fsum(s**2))


def nearest(matrix: Floats, rank: int) -> Compressed:
    """An approximation of a whole matrix of that rank: the best one of a small matrix.

    Others are projected on the range of ``(M M')^q M G`` first, with G a fixed random matrix of ``2 rank + 8`` columns
    and ``q = 3`` (Halko, Martinsson and Tropp 2011, algorithm 4.4). What is left out is counted in float64.
    """
    square = math.fsum(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    width = 2 * rank + _SPARE
    with one_thread():
        if width >= min(matrix.shape):
            return _cut(*np.linalg.svd(matrix.astype(np.float64), full_matrices=False), rank, square)
        basis = _range(matrix, width)
        columns = chunks(matrix.shape[1], _COLUMNS)
        projected = [basis.T @ matrix[:, start:stop].astype(np.float64) for start, stop in columns]
        u, s, vt = np.linalg.svd(np.concatenate(projected, axis=1), full_matrices=False)
        return _cut(basis @ u, s, vt, rank, square)


def _cut(u: Doubles, s: Doubles, vt: Doubles, rank: int, whole: float) -> Compressed:
    kept = count(s, rank)
    lost = max(0.0, whole - math.fsum(s[:kept] ** 2)) if kept < len(s) else 0.0
    return Compressed(balanced(u[:, :kept], s[:kept], vt[:kept]) if kept else None, lost, whole)


def _range(matrix: Floats, width: int) -> Doubles:
    """An orthonormal basis, (rows, width), of most of what a matrix reaches. Its products are in float32."""
    draw = np.random.default_rng(0)
    reached = matrix @ draw.standard_normal((matrix.shape[1], width), dtype=np.float32)
    for _ in range(_ROUNDS):
        other, _ = np.linalg.qr(matrix.T @ np.linalg.qr(reached)[0])
        reached = matrix @ other
    basis: Doubles = np.linalg.qr(reached.astype(np.float64))[0]
    return basis
