"""Task vectors that all give way to one another in a shared offset, outside of the subspace that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.matrices import DEPENDENT, Matrix, MatrixOperator, eigen, single, tau, truncated
from evomerge.merge.operators.port import Parameter, Piece, Tensor, Values
from evomerge.merge.operators.statistics import model_threshold, sums

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Doge(MatrixOperator):
    """DOGE-TA (Wei et al. 2025): ``theta_0 + sum_i lambda_i m_i (tau_i + Delta)``, matrix by matrix.

    ``lambda_i = eta / |tau_i|``; m_i are the ``keep`` largest entries of the whole task vector. The offset Delta lowers

        sum_j sum_rows (sum_columns tau_j (tau_j - sum_i lambda_i (tau_i + Delta)))^2

    by ``steps`` steps from 0 along the gradient, freed of what lies in the shared subspace: the leading left vectors
    (``subspace`` of the rank) of all task vectors' leading ones. The paper's steps are Adam's, which rescales entries
    and so enters that subspace; here they are plain, and so short that the sum never rises. ``(sum_i lambda_i) Delta``
    is then linear in eta, and is found once per pool for every eta. Other tensors, if ``linear``, have
    ``lambda_i m_i tau_i`` alone. Values: ``eta``, ``keep``.
    """

    others: Literal["mean", "base", "linear"] = "linear"
    subspace: float = 1 / 6
    steps: int = 50

    parameters: ClassVar = (
        Parameter("eta", 0.01, 0.3, 0.07),
        Parameter("keep", 0.1, 1.0, 0.3, limits=(0.0, 1.0)),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.subspace <= 1.0 or self.steps < 0:
            raise RecipeError(f"doge cannot take {self.steps} steps outside {self.subspace} of the rank")

    def scale(self, tensor: Tensor, values: Values) -> float:
        """There is no outer factor."""
        return 1.0

    def matrix(self, piece: Piece, values: Values) -> Any:
        """``theta_0 + sum_i m_i (lambda_i tau_i + (lambda_i / sum_j lambda_j) Gamma)``."""
        found = piece.tensor.remember(
            f"doge 1 {self.subspace} {self.steps}", lambda: offsets(piece.tensor, self.subspace, self.steps)
        )
        gamma = found["own"] - np.float32(values.one("eta")) * found["merged"]
        lengths = inverse_lengths(piece.tensor)
        parts = lengths / (sum(lengths) or 1.0)
        return self._masked(piece, values, [beside(np.float32(part) * gamma, piece.theta) for part in parts])

    def other(self, piece: Piece, values: Values) -> Any:
        """Task arithmetic with the lambdas and masks, or what the option says."""
        return self._masked(piece, values, ()) if self.others == "linear" else super().other(piece, values)

    def _masked(self, piece: Piece, values: Values, offsets: Sequence[Any]) -> Any:
        base, *experts = piece.theta
        lengths = inverse_lengths(piece.tensor)
        xp = namespace(base)
        total = 1.0 * base
        for at, (expert, length) in enumerate(zip(experts, lengths, strict=True)):
            learned = expert - base
            kept = xp.abs(learned) >= model_threshold(piece.tensor.model, at + 1, values.one("keep"))
            moved = float(values.one("eta") * length) * learned + (offsets[at] if offsets else 0.0)
            total += xp.where(kept, moved, xp.zeros_like(base))
        return total


def inverse_lengths(tensor: Tensor) -> NDArray[np.float64]:
    """``1 / |tau_i|`` on one tensor, 0 where an expert has learned nothing there."""
    norms = [sums(tensor, source).norm for source in range(1, tensor.sources)]
    return np.array([1.0 / norm if norm > 0.0 else 0.0 for norm in norms])


def offsets(tensor: Tensor, subspace: float, steps: int) -> dict[str, NDArray[Any]]:
    """``own`` - eta ``merged`` is Gamma, ``(sum_i lambda_i) Delta``.

    It follows ``tau_j - eta sum_i tau_i / |tau_i|``, and so each of the two terms by itself.
    """
    taus = [single(tau(tensor, source)) for source in range(1, tensor.sources)]
    lengths = inverse_lengths(tensor).astype(np.float32)
    shared = single(shared_subspace(tensor, subspace))
    merged = sum(length * learned for length, learned in zip(lengths, taus, strict=True))
    units = _stable(taus)
    own = follow(units, [_rows(unit, learned) for unit, learned in zip(units, taus, strict=True)], shared, steps)
    joint = follow(units, [_rows(unit, merged) for unit in units], shared, steps)
    return {"own": own, "merged": joint}


def follow(units: Sequence[Singles], wanted: Sequence[Singles], shared: Singles, steps: int) -> Singles:
    """Steps of ``Gamma += (1 - S S^T) sum_j diag(wanted_j - rows(u_j, Gamma)) u_j`` from 0, S orthonormal."""
    gamma: Singles = np.zeros_like(units[0])
    for _ in range(steps):
        pull = np.zeros_like(gamma)
        for unit, row in zip(units, wanted, strict=True):
            pull += (row - _rows(unit, gamma))[:, None] * unit
        gamma += pull - shared @ (shared.T @ pull)
    return gamma


def shared_subspace(tensor: Tensor, share: float) -> Matrix:
    """Leading left singular vectors of all experts' leading left singular vectors side by side (out x k)."""
    rank = min(tensor.shape)
    fair = max(1, rank // (tensor.sources - 1))
    stacked = np.hstack([truncated(tensor, source, fair).left for source in range(1, tensor.sources)])
    squares, vectors = eigen(stacked.T @ stacked, tensor.name)
    k = min(int(share * rank + 1e-9), int(np.count_nonzero(squares > DEPENDENT * squares.max(initial=0.0))))
    basis: Matrix = (stacked @ vectors[:, :k]) / np.sqrt(squares[:k])
    return basis


def _stable(taus: Sequence[Singles]) -> list[Singles]:
    """Task vectors over a common factor with which a step is the longest that cannot overshoot in any row."""
    grams = np.array([[(one.astype(np.float64) * two).sum(axis=1) for two in taus] for one in taus])
    largest = np.linalg.eigvalsh(np.moveaxis(grams, 2, 0)).max(initial=0.0)
    factor = 1.0 / np.sqrt(largest) if largest > 0.0 else 0.0
    return [single(learned * factor) for learned in taus]


def _rows(one: Singles, two: Singles) -> Singles:
    """The inner product of each row."""
    products: Singles = (one * two).sum(axis=1)
    return products
