"""Experts taken in one after the other, each only where the models before it have nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from evomerge.merge.operators.arrays import beside
from evomerge.merge.operators.matrices import Matrix, MatrixOperator, Svd, single, svd, tau, truncated
from evomerge.merge.operators.port import Parameter, Piece, Tensor, Values
from evomerge.merge.operators.statistics import model_sums, sums
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import BLOCK


@dataclass(frozen=True)
class Opcm(MatrixOperator):
    """Orthogonal projection-based continual merging (Tang et al. 2025). The order of the experts is part of it.

    What has been merged so far is ``X = U S V^T`` (at first ``X = tau_1``). Of the next task vector ``P = U^T tau V``
    loses its diagonal and its leading r x r block, r being how many singular values add up to ``alpha`` of all at most;
    the rest, ``tau - U R V^T`` with R what P loses, is added to X. In the end X gets the mean length of the task
    vectors, times ``norm``: over the whole model (``length = "global"``, which takes every decomposition twice), or
    tensor by tensor. (The paper does so after every step; all but the last cancel.) Values: ``alpha``, ``norm``.
    """

    others: Literal["mean", "base", "linear"] = "linear"
    length: Literal["global", "tensor"] = "global"

    parameters: ClassVar = (
        Parameter("alpha", 0.0, 0.95, 0.5, limits=(0.0, 1.0)),
        Parameter("norm", 0.5, 1.5, 1.0),
    )
    ordered: ClassVar[bool] = True

    def matrix(self, piece: Piece, values: Values) -> Any:
        """``theta_0 + scale X``."""
        scale = self.scale(piece.tensor, values)
        base = piece.source(0)
        return base + beside(single(scale * projected(piece.tensor, values.one("alpha"))), base)

    def scale(self, tensor: Tensor, values: Values) -> float:
        """What gives X its length; 0 where X is zero."""
        experts = range(1, tensor.sources)
        if self.length == "tensor":
            square = self._square(tensor, values)
            wanted = [sums(tensor, source).norm for source in experts]
        else:
            model = tensor.model
            key = ("opcm", values.one("alpha"))
            square = model.once(key, lambda: math.fsum(self._square(one, values) for one in model.tensors()))
            wanted = [model_sums(model, source).norm for source in experts]
        mean = values.one("norm") * math.fsum(wanted) / len(wanted)
        return mean / math.sqrt(square) if square > 0.0 else 0.0

    def _square(self, tensor: Tensor, values: Values) -> float:
        """The squared length of X on one tensor."""
        if self.takes(tensor):
            return float(np.square(projected(tensor, values.one("alpha"))).sum())
        weights = self.shares(values, tensor.sources - 1)
        total = []
        for start, stop in chunks(tensor.size, BLOCK):
            base = tensor.read(0, start, stop).astype(np.float64)
            learned = sum(w * (tensor.read(at, start, stop) - base) for at, w in enumerate(weights, start=1))
            total.append(float(np.square(learned).sum()))
        return math.fsum(total)


def projected(tensor: Tensor, alpha: float) -> Matrix:
    """X after the last expert, before it gets its length. Only the first decomposition does not depend on alpha."""
    x = tau(tensor, 1)
    for source in range(2, tensor.sources):
        parts = truncated(tensor, 1, min(tensor.shape)) if source == 2 else svd(x, tensor.name)
        learned = tau(tensor, source)
        x += learned - _lost(parts, learned, alpha)
    return x


def _lost(parts: Svd, learned: Matrix, alpha: float) -> Matrix:
    """``U R V^T``: what the next task vector has on the diagonal of P and in its leading block."""
    left, values, right = parts
    r = int(np.count_nonzero(np.cumsum(values) <= alpha * (1.0 + 1e-12) * values.sum()))
    p = left.T @ learned
    diagonal = (p * right.T).sum(axis=1)
    block = p[:r] @ right[:, :r]
    lost: Matrix = left[:, :r] @ (block @ right[:, :r].T) + (left[:, r:] * diagonal[r:]) @ right[:, r:].T
    return lost
