"""Task vectors of three values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Model, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.operators.statistics import model_sums, model_threshold


@dataclass(frozen=True)
class ComPEFT(TensorOperator):
    """``theta_0 + sum_i alpha_i std(tau_i) sgn(tau_i)`` where ``|tau_i|`` is among its largest (Yadav et al. 2023).

    ``tau_i = theta_i - theta_0``. Of each task vector the share ``keep`` counts (all that equal the smallest of it,
    too), chosen over the whole model, as is the standard deviation. ``alpha`` is both what the method scales an expert
    with and its weight in the sum. `evomerge.merge.compress` stores such vectors. Values: one ``keep`` and one
    ``alpha`` per expert.
    """

    parameters: ClassVar = (
        Parameter("keep", 0.05, 0.5, 0.2, "expert", limits=(0.0, 1.0)),
        Parameter("alpha", 0.1, 10.0, 1.0, "expert", kind="log"),
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def prepare(self, tensor: Tensor, values: Values) -> list[tuple[float, float]]:
        """Each expert's threshold, and the size of all that reaches it."""
        return [
            (model_threshold(tensor.model, expert, keep), alpha * deviation(tensor.model, expert))
            for expert, (keep, alpha) in enumerate(zip(values.each("keep"), values.each("alpha"), strict=True), 1)
        ]

    def merge(self, piece: Piece, values: Values, prepared: list[tuple[float, float]]) -> Any:
        """Expert by expert. On the CPU a kernel gives the bytes of `plain`."""
        theta = piece.theta
        if not isinstance(theta, np.ndarray):
            return self.plain(theta, prepared)
        from evomerge.merge.kernels.consensus import signs

        thresholds, sizes = np.array(prepared, dtype=np.float32).T.copy()
        out = np.empty(theta.shape[1], dtype=np.float32)
        signs(theta, thresholds, sizes, out)
        return out

    def plain(self, theta: Any, prepared: list[tuple[float, float]]) -> Any:
        """The merge on arrays of any kind, the base first."""
        xp, merged, deltas = namespace(theta), theta[0], theta[1:] - theta[0]
        for delta, (threshold, size) in zip(deltas, prepared, strict=True):
            merged = merged + size * xp.where(xp.abs(delta) >= threshold, xp.sign(delta), 0.0)
        return merged


def deviation(model: Model, source: int) -> float:
    """Standard deviation of all entries of a source's task vector."""
    size = sum(tensor.size for tensor in model.tensors())
    found = model_sums(model, source)
    return math.sqrt(max(found.square / size - (found.total / size) ** 2, 0.0))
