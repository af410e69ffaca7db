"""Keeping of a merged task vector what enough experts claim for themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.operators.statistics import model_threshold


@dataclass(frozen=True)
class Consensus(TensorOperator):
    """``theta_0 + alpha [sum_t m_t >= k] tau`` with TALL masks ``m_t`` (Wang et al. 2024, Consensus Task Arithmetic).

    ``tau = sum_t tau_t`` and ``m_t = [|tau_t| >= lambda_t |tau - tau_t|]``, element by element: expert t claims what
    its own task vector dominates. ``k = 0`` keeps all of tau, 1 drops what nobody claims (catastrophic weights), 2 also
    what a single expert claims (selfish ones), up to the number of experts. Values: a ``lambda`` per expert, ``k``,
    ``alpha``.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("lambda", 0.1, 1.0, 0.4, "expert", limits=(0.0, math.inf)),
        Parameter("k", 0, 2, 2, kind="integer", limits=(0, math.inf)),
        Parameter("alpha", 0.1, 1.5, 0.3),
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True
    elects: ClassVar[bool] = False
    """Whether the merged task vector is that of TIES."""

    def values(self, flat: Sequence[float], sources: int) -> Values:
        """A segment's values by name; more claims than there are experts are refused."""
        values = super().values(flat, sources)
        k = values.one("k")
        if k > sources - 1:
            raise RecipeError(f"k = {k:g} is impossible: there are {sources - 1} experts, so no weight would be kept")
        return values

    def prepare(self, tensor: Tensor, values: Values) -> list[float]:
        """Each expert's threshold of magnitude: none."""
        return [0.0] * (tensor.sources - 1)

    def merge(self, piece: Piece, values: Values, prepared: list[float]) -> Any:
        """Entry by entry. On the CPU a kernel gives the bytes of `plain`."""
        theta = piece.theta
        if not isinstance(theta, np.ndarray):
            return self.plain(theta, values, prepared)
        from evomerge.merge.kernels.consensus import consensus

        thresholds, lambdas = (np.array(each, dtype=np.float32) for each in (prepared, values.each("lambda")))
        k, alpha = np.float32(values.one("k")), np.float32(values.one("alpha"))
        out = np.empty(theta.shape[1], dtype=np.float32)
        consensus(theta, thresholds, self.elects, lambdas, k, alpha, out)
        return out

    def plain(self, theta: Any, values: Values, thresholds: Sequence[float]) -> Any:
        """The merge on arrays of any kind, the base first."""
        xp, base, deltas = namespace(theta), theta[0], theta[1:] - theta[0]
        together = _elected(deltas, thresholds) if self.elects else xp.sum(deltas, axis=0)
        claims = xp.zeros_like(base)
        for delta, claim in zip(deltas, values.each("lambda"), strict=True):
            claims += xp.abs(delta) >= claim * xp.abs(together - delta)
        return base + values.one("alpha") * xp.where(claims >= values.one("k"), together, 0.0)


@dataclass(frozen=True)
class ConsensusTies(Consensus):
    """`Consensus` over the task vector of TIES (Consensus TIES): trimmed, one sign per element, the sum of what has it.

    Of each expert's task vector the share ``density`` is kept, over the whole model; where the trimmed sum is zero the
    sign is +. The masks compare the experts' untrimmed task vectors with it. Values: those of `Consensus`, then one
    ``density``.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        *Consensus.parameters,
        Parameter("density", 0.05, 1.0, 0.2, limits=(0.0, 1.0)),
    )

    elects: ClassVar[bool] = True

    def prepare(self, tensor: Tensor, values: Values) -> list[float]:
        """Each expert's threshold of magnitude."""
        density = values.one("density")
        return [model_threshold(tensor.model, expert, density) for expert in range(1, tensor.sources)]


def _elected(deltas: Any, thresholds: Sequence[float]) -> Any:
    """The sum of the trimmed entries that have the sign of the sum of all."""
    xp = namespace(deltas)
    positive, negative = xp.zeros_like(deltas[0]), xp.zeros_like(deltas[0])
    for delta, threshold in zip(deltas, thresholds, strict=True):
        trimmed = xp.where(xp.abs(delta) >= threshold, delta, 0.0)
        positive += xp.clip(trimmed, 0.0, None)
        negative += xp.clip(trimmed, None, 0.0)
    return xp.where(positive + negative >= 0.0, positive, negative)
