"""What operators share that decompose whole matrices: reading, decomposing, and what becomes of all other tensors.

Everything is computed in float64 on one BLAS thread each, so that the bytes do not depend on how many there are. A
singular value decomposition goes by the eigenvectors of the smaller Gram matrix, which takes less than half the time of
LAPACK's own; singular values below 1e-7 of the largest count as zero.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError, RecipeError
from evomerge.merge.blas import one_thread
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Grain, Piece, Tensor, TensorOperator, Values

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

EMBEDDINGS = "*embed*, *wte*, *wpe*, *lm_head*"
LARGEST = 20_000
"""Longest side of an eigenproblem, whose three matrices then take 10 GB."""
_ZERO = 1e-7
"""Singular values below this share of the largest are rounding of the Gram matrix, which holds their squares."""
DEPENDENT = 1e-10
"""Eigenvalues of a Gram matrix of unit vectors below this share of the largest: vectors that depend on each other."""


class Svd(NamedTuple):
    """``left diag(values) right^T`` with orthonormal columns, values descending and above zero."""

    left: Matrix
    values: Vector
    right: Matrix


@dataclass(frozen=True)
class MatrixOperator(TensorOperator):
    """Acts on the task vectors of whole matrices; the first source is the base.

    All other tensors, and the matrices whose names fit a pattern of ``leave`` (parted by commas), get ``others``: the
    scaled ``mean`` of their task vectors, the ``base``, or the ``linear`` sum with the operator's weights.
    """

    others: Literal["mean", "base", "linear"] = "mean"
    leave: str = EMBEDDINGS

    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    def takes(self, tensor: Tensor) -> bool:
        """Whether the tensor is one of the matrices."""
        patterns = (pattern.strip() for pattern in self.leave.split(","))
        return len(tensor.shape) == 2 and not any(fnmatchcase(tensor.name, pattern) for pattern in patterns)

    def grain(self, tensor: Tensor) -> Grain:
        """Matrices are not cut."""
        return "matrix" if self.takes(tensor) else "element"

    def merge(self, piece: Piece, values: Values, prepared: Any) -> Any:
        """A matrix, or a piece of another tensor."""
        if self.takes(piece.tensor):
            with one_thread():
                return self.matrix(piece, values)
        return self.other(piece, values)

    def other(self, piece: Piece, values: Values) -> Any:
        """``theta_0 + scale sum_i w_i tau_i``, as a sum over the models."""
        scale = self.scale(piece.tensor, values)
        weights = [scale * weight for weight in self.shares(values, piece.tensor.sources - 1)]
        return combined(piece.theta, (1.0 - math.fsum(weights), *weights))

    def shares(self, values: Values, experts: int) -> tuple[float, ...]:
        """What the task vectors of other tensors are multiplied by, before they are scaled."""
        if self.others == "linear":
            return self.weights(values, experts)
        return ((1.0 / experts if self.others == "mean" else 0.0),) * experts

    def weights(self, values: Values, experts: int) -> tuple[float, ...]:
        """The operator's weights, one per expert."""
        return (1.0,) * experts

    @abstractmethod
    def scale(self, tensor: Tensor, values: Values) -> float:
        """The outer factor, lambda or alpha."""

    @abstractmethod
    def matrix(self, piece: Piece, values: Values) -> Any:
        """The merged matrix, float32. Called with one BLAS thread."""


def combined(theta: Any, coefficients: Sequence[float]) -> Any:
    """``sum_j c_j theta_j``, left to right."""
    total = coefficients[0] * theta[0]
    for coefficient, one in zip(coefficients[1:], theta[1:], strict=True):
        total += coefficient * one
    return total


def tau(tensor: Tensor, source: int) -> Matrix:
    """``theta_source - theta_0`` of a matrix.

    Raises:
        PoolError: it is not finite.
    """
    learned = tensor.read(source, 0, tensor.size).astype(np.float64) - tensor.read(0, 0, tensor.size)
    if not np.isfinite(learned).all():
        raise PoolError(f"tensor {tensor.name!r} of source {source} or of the base is not finite; drop that model")
    return learned.reshape(tensor.shape)


def eigen(gram: Matrix, what: str) -> tuple[Vector, Matrix]:
    """Eigenvalues, descending and not below zero, and eigenvectors (columns) of a symmetric matrix.

    Raises:
        RecipeError: it is too large.
    """
    if len(gram) > LARGEST:
        raise RecipeError(
            f"{what} needs an eigenproblem of side {len(gram)}, more than {LARGEST}; add its name to the option leave"
        )
    with one_thread():
        values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def svd(matrix: Matrix, what: str, rank: int | None = None) -> Svd:
    """The largest ``rank`` singular values that are not zero (default: all of them), and their vectors."""
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = svd(matrix.T, what, rank)
        return Svd(left, values, right)
    with one_thread():
        squares, vectors = eigen(matrix.T @ matrix, what)
        values = np.sqrt(squares)
        kept = int(np.count_nonzero(values[:rank] > _ZERO * values.max(initial=0.0)))
        right = np.ascontiguousarray(vectors[:, :kept])
        return Svd((matrix @ right) / values[:kept], values[:kept], right)


def truncated(tensor: Tensor, source: int, rank: int) -> Svd:
    """The leading singular triplets of one task vector, found once per pool and kept in float32."""

    def compute() -> dict[str, NDArray[Any]]:
        left, values, right = svd(tau(tensor, source), tensor.name, rank)
        return {"left": single(left), "values": values, "right": single(right)}

    found = tensor.remember(f"svd of tau 1 rank {rank}", compute, of=(0, source))
    return Svd(found["left"].astype(np.float64), found["values"], found["right"].astype(np.float64))


def polar(matrix: Matrix, what: str) -> Matrix:
    """The nearest matrix with orthonormal columns, ``X (X^T X)^(-1/2)``; of dependent columns what they span, once."""
    with one_thread():
        squares, vectors = eigen(matrix.T @ matrix, what)
        kept = squares > DEPENDENT * squares.max(initial=0.0)
        basis = vectors[:, kept]
        orthonormal: Matrix = (matrix @ (basis / np.sqrt(squares[kept]))) @ basis.T
        return orthonormal


def single(matrix: Matrix) -> NDArray[np.float32]:
    """As float32, row after row: products depend on how a matrix lies in memory."""
    return np.ascontiguousarray(matrix, dtype=np.float32)
