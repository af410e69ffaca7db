"""What experts share, and what each of them knows beyond it, compressed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.matrices import MatrixOperator, single, svd, tau
from evomerge.merge.operators.port import Parameter, Piece, Tensor, Values


@dataclass(frozen=True)
class Twin(MatrixOperator):
    """Twin-Merging (Lu et al. 2024) with gates that are fixed: ``theta_s + sum_i g_i v_i``, matrix by matrix.

    ``theta_s = theta_0 + shared sum_i tau_i`` is what the experts share, and v_i the part of ``theta_i - theta_s`` in
    its leading singular triplets, ``kept`` of the matrix's rank (one at least). The paper's gates are a router's, for
    each input. Of other tensors nothing is cut off (``linear``), or see ``others``. Values: a ``gate`` per expert.
    """

    others: Literal["mean", "base", "linear"] = "linear"
    shared: float = 0.3
    kept: float = 0.1

    parameters: ClassVar = (Parameter("gate", 0.0, 1.0, 0.5, "expert"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.kept <= 1.0 or not math.isfinite(self.shared):
            raise RecipeError(f"twin cannot share {self.shared} of all and keep {self.kept} of the rank")

    def scale(self, tensor: Tensor, values: Values) -> float:
        """There is no outer factor."""
        return 1.0

    def weights(self, values: Values, experts: int) -> tuple[float, ...]:
        """``theta_s + sum_i g_i (theta_i - theta_s)`` by task vectors: ``shared (1 - sum_j g_j) + g_i``."""
        gates = values.each("gate")
        return tuple(self.shared * (1.0 - math.fsum(gates)) + gate for gate in gates)

    def matrix(self, piece: Piece, values: Values) -> Any:
        """``theta_s + sum_i g_i left_i diag(values_i) right_i^T``."""
        theta = piece.theta
        shares = (1.0 - self.shared * (len(theta) - 1), *(self.shared,) * (len(theta) - 1))
        found = piece.tensor.remember(f"twin 1 {self.shared} {self.kept}", lambda: self._own(piece.tensor))
        gates = np.repeat(np.array(values.each("gate"), dtype=np.float32), found["counts"])
        left, right = beside(found["left"] * gates, theta), beside(found["right"], theta)
        merged = namespace(theta).matmul(left, right.T)
        for share, one in zip(shares, theta, strict=True):
            merged += share * one
        return merged

    def _own(self, tensor: Tensor) -> dict[str, NDArray[Any]]:
        """``left`` (times the singular values) and ``right`` of all experts, and ``counts``: how many are whose."""
        sources = range(1, tensor.sources)
        common = self.shared * sum(tau(tensor, source) for source in sources)
        rank = max(1, math.floor(self.kept * min(tensor.shape) + 1e-9))
        parts = [svd(tau(tensor, source) - common, tensor.name, rank) for source in sources]
        return {
            "left": single(np.hstack([part.left * part.values for part in parts])),
            "right": single(np.hstack([part.right for part in parts])),
            "counts": np.array([len(part.values) for part in parts]),
        }
