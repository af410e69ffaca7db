"""Task vectors as singular vectors, made orthogonal to one another before they are summed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.matrices import MatrixOperator, polar, single, truncated
from evomerge.merge.operators.port import Parameter, Piece, Tensor, Values


@dataclass(frozen=True)
class TsvMerge(MatrixOperator):
    """TSV-M (Gargiulo et al. 2025): ``theta_0 + alpha U diag(g_i sigma_i) V^T``, matrix by matrix.

    Of each task vector ``U_i diag(sigma_i) V_i^T`` the leading ``share_i r`` singular triplets are kept, r the N-th
    part of the matrix's rank (one at least). U and V are what is nearest with orthonormal columns to ``[U_1 ... U_N]``
    and ``[V_1 ... V_N]``; where those depend on each other, as equal experts do, the nearest that spans the same. The
    decompositions are found once per pool; U and V, too, for shares of 1. Values: ``alpha``, ``share`` and ``gain``
    per expert.
    """

    parameters: ClassVar = (
        Parameter("alpha", 0.5, 2.0, 1.0),
        Parameter("share", 0.1, 1.0, 1.0, "expert", limits=(0.0, 1.0), above=True),
        Parameter("gain", 0.5, 1.5, 1.0, "expert"),
    )

    def scale(self, tensor: Tensor, values: Values) -> float:
        """The outer alpha."""
        return values.one("alpha")

    def weights(self, values: Values, experts: int) -> tuple[float, ...]:
        """The gains."""
        return values.each("gain")

    def matrix(self, piece: Piece, values: Values) -> Any:
        """``theta_0 + alpha U diag(g_i sigma_i) V^T``."""
        found = self._orthogonal(piece.tensor, values.each("share"))
        gains = np.repeat(values.each("gain"), found["counts"])
        middle = (self.scale(piece.tensor, values) * gains * found["values"]).astype(np.float32)
        base = piece.source(0)
        left, right = beside(found["left"] * middle, base), beside(found["right"], base)
        return base + namespace(base).matmul(left, right.T)

    def _orthogonal(self, tensor: Tensor, shares: Sequence[float]) -> dict[str, NDArray[Any]]:
        fair = max(1, min(tensor.shape) // len(shares))
        ranks = [max(1, math.floor(share * fair)) for share in shares]
        if min(ranks) < fair:
            return _orthogonalised(tensor, ranks, fair)
        return dict(tensor.remember("tsv 1", lambda: _orthogonalised(tensor, ranks, fair)))


def _orthogonalised(tensor: Tensor, ranks: Sequence[int], fair: int) -> dict[str, NDArray[Any]]:
    """``left`` U, ``right`` V, ``values`` sigma of all experts, and ``counts``: how many are whose."""
    parts = [truncated(tensor, source, fair) for source in range(1, tensor.sources)]
    return {
        "left": single(polar(np.hstack([part.left[:, :k] for part, k in zip(parts, ranks, strict=True)]), tensor.name)),
        "right": single(
            polar(np.hstack([part.right[:, :k] for part, k in zip(parts, ranks, strict=True)]), tensor.name)
        ),
        "values": np.concatenate([part.values[:k] for part, k in zip(parts, ranks, strict=True)]),
        "counts": np.array([len(part.values[:k]) for part, k in zip(parts, ranks, strict=True)]),
    }
