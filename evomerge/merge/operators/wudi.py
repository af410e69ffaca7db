"""Weights that interfere least with what each expert has learned to read: the WUDI family in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.matrices import Matrix, MatrixOperator, Vector, eigen, single, svd, tau
from evomerge.merge.operators.port import Parameter, Piece, Tensor, Values

_ZERO = 1e-10
"""Eigenvalues below this share of the largest: no expert has learned anything in these directions."""
_POSITIVE = (0.0, math.inf)


@dataclass(frozen=True)
class Wudi(MatrixOperator):
    """The experts' task vectors with their interference filtered out (Cheng et al. 2025), matrix by matrix.

    WUDI minimises ``sum_i a_i |(Theta - tau_i) tau_i^T|^2``, ``a_i = 1 / |tau_i|^2``, by gradient steps. Here they are
    summed: with ``C = sum_i a_i tau_i^T tau_i = V Lambda V^T`` and ``D = sum_i a_i tau_i tau_i^T tau_i``, after a time
    ``t = 2 (step size) (steps)``,

        Theta = Theta_0 + (D V / Lambda - Theta_0 V) f V^T,  f = 1 - exp(-t Lambda),

    and ``theta = theta_0 + lambda Theta``. Directions with ``Lambda << 1/t`` stay where they start: at the ``mean`` or
    the ``sum`` of the task vectors (``start``). V, Lambda and the term in brackets are found once per pool; a candidate
    is then one matrix product.

    Only the leading ``rho R`` directions move at all, R by ``rank``: all of them (``full``),
    ``(sum sqrt(Lambda))^2 / sum Lambda`` (``participation``), or those that stand out of noise (``gavish_donoho``).
    With ``truncate`` the targets are the task vectors' truncations to the N-th part of their rank. Known points:

    * WUDI: start sum, t about 300, rho 1. Its exact minimum: t 1e12.
    * SWUDI: start sum, t 300 to 1300, rho 0.65 (0.85 for full weights of language models).
    * ASWUDI: start sum, t 1e12, rank participation (or gavish_donoho), rho 1.
    * OptMerge: start mean, truncate, t about 0.6, rho 1.

    Values: ``t``, ``rho``, ``lambda``.
    """

    start: Literal["mean", "sum"] = "mean"
    rank: Literal["full", "participation", "gavish_donoho"] = "full"
    truncate: bool = False

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("t", 1.0, 3162.0, 300.0, kind="log", limits=_POSITIVE),
        Parameter("rho", 0.3, 1.0, 1.0, limits=(0.0, 1.0)),
        Parameter("lambda", 0.1, 1.5, 1.0),
    )

    def scale(self, tensor: Tensor, values: Values) -> float:
        """The outer lambda."""
        return values.one("lambda")

    def matrix(self, piece: Piece, values: Values) -> Any:
        """``theta_0 + lambda (Theta_0 + moves f directions^T)``."""
        found = self.problem(piece.tensor, values)
        base, *experts = piece.theta
        theta = experts[0] - base
        for expert in experts[1:]:
            theta += expert - base
        if self.start == "mean":
            theta /= len(experts)
        kept = self._kept(found["eigenvalues"], piece.tensor, len(experts), values.one("rho"))
        f = -np.expm1(-values.one("t") * found["eigenvalues"][:kept])
        moves = beside(found["moves"][:, :kept] * f.astype(np.float32), base)
        theta += namespace(base).matmul(moves, beside(found["directions"][:, :kept], base).T)
        return base + self.scale(piece.tensor, values) * theta

    def problem(self, tensor: Tensor, values: Values) -> dict[str, NDArray[Any]]:
        """``directions`` V, ``eigenvalues`` Lambda, and ``moves`` ``D V / Lambda - Theta_0 V``."""
        key = f"wudi 1 {self.start} {self.truncate}"
        ones = (1.0,) * (tensor.sources - 1)
        return dict(tensor.remember(key, lambda: self.solve(tensor, ones)))

    def solve(self, tensor: Tensor, preferences: tuple[float, ...]) -> dict[str, NDArray[Any]]:
        """The same, computed; ``a_i`` are multiplied by the preferences."""
        squares = [float(np.square(tau(tensor, source)).sum()) for source in range(1, tensor.sources)]
        a = [c / square if square else 0.0 for c, square in zip(preferences, squares, strict=True)]
        targets = self._targets(tensor)
        eigenvalues, directions = spectrum(targets, a, tensor)
        share = 1.0 if self.start == "sum" else 1.0 / len(targets)
        best, first = np.zeros((2, tensor.shape[0], len(eigenvalues)))
        for source, (weight, target) in enumerate(zip(a, targets, strict=True), start=1):
            learned = target()
            seen = learned @ directions
            best += weight * squared(learned, seen)
            first += share * (tau(tensor, source) @ directions if self.truncate else seen)
        moves = best / eigenvalues - first
        return {"moves": single(moves), "directions": single(directions), "eigenvalues": eigenvalues}

    def _targets(self, tensor: Tensor) -> list[Callable[[], Matrix]]:
        sources = range(1, tensor.sources)
        if not self.truncate:
            return [partial(tau, tensor, source) for source in sources]
        rank = max(1, min(tensor.shape) // len(sources))
        parts = [svd(tau(tensor, source), tensor.name, rank) for source in sources]
        return [lambda part=part: (part.left * part.values) @ part.right.T for part in parts]  # type: ignore[misc]

    def _kept(self, eigenvalues: Vector, tensor: Tensor, experts: int, rho: float) -> int:
        """How many leading directions move."""
        rows, columns = tensor.shape
        if self.rank == "full":
            count = float(columns)
        elif self.rank == "participation":
            count = float(np.sqrt(eigenvalues).sum() ** 2 / (eigenvalues.sum() or 1.0))
        else:
            count = float(outstanding(np.sqrt(eigenvalues), experts * rows, columns))
        return min(len(eigenvalues), math.ceil(rho * count - 1e-9))


@dataclass(frozen=True)
class WeightedWudi(Wudi):
    """`Wudi` with a ``weight`` per expert: how much its interference counts beside the others'.

    Only ratios matter. Every choice of weights is an eigenproblem of its own, which is not kept.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        *Wudi.parameters,
        Parameter("weight", 0.25, 4.0, 1.0, "expert", "log", _POSITIVE, above=True),
    )

    def weights(self, values: Values, experts: int) -> tuple[float, ...]:
        """Their ratios, 1 on the average."""
        weights = values.each("weight")
        mean = math.fsum(weights) / experts
        return tuple(weight / mean for weight in weights)

    def problem(self, tensor: Tensor, values: Values) -> dict[str, NDArray[Any]]:
        """Solved anew."""
        return self.solve(tensor, self.weights(values, tensor.sources - 1))


def spectrum(targets: list[Callable[[], Matrix]], a: list[float], tensor: Tensor) -> tuple[Vector, Matrix]:
    """Eigenvalues above zero and eigenvectors of ``C = S^T S``, S the ``sqrt(a_i) tau_i`` below one another.

    By way of the smaller of ``S^T S`` and ``S S^T``.
    """
    rows, columns = tensor.shape
    if len(targets) * rows >= columns:
        c = np.zeros((columns, columns))
        for weight, target in zip(a, targets, strict=True):
            learned = target()
            c += weight * (learned.T @ learned)
        eigenvalues, vectors = eigen(c, tensor.name)
        kept = eigenvalues > _ZERO * eigenvalues.max(initial=0.0)
        return eigenvalues[kept], vectors[:, kept]
    stacked = np.concatenate([math.sqrt(weight) * target() for weight, target in zip(a, targets, strict=True)])
    eigenvalues, vectors = eigen(stacked @ stacked.T, tensor.name)
    kept = eigenvalues > _ZERO * eigenvalues.max(initial=0.0)
    return eigenvalues[kept], (stacked.T @ vectors[:, kept]) / np.sqrt(eigenvalues[kept])


def squared(learned: Matrix, seen: Matrix) -> Matrix:
    """``tau tau^T seen``, the cheaper way round."""
    rows, columns = learned.shape
    found: Matrix = (learned @ learned.T) @ seen if rows < columns else learned @ (learned.T @ seen)
    return found


def outstanding(singular: Vector, rows: int, columns: int) -> int:
    """How many singular values of a matrix are above the optimal threshold for unknown noise (Gavish & Donoho 2014).

    ``omega(beta) median`` with ``omega(beta) = 0.56 beta^3 - 0.95 beta^2 + 1.82 beta + 1.43``,
    beta the ratio of the sides. ``singular`` may lack zeros.
    """
    beta = min(rows, columns) / max(rows, columns)
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    zeros = np.zeros(max(0, min(rows, columns) - len(singular)))
    return int(np.count_nonzero(singular > omega * np.median(np.concatenate([singular, zeros]))))
