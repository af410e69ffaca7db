"""Keeping of a merged task vector what enough experts claim for themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.statistics import model_threshold


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

    def values(self, flat: Sequence[float], sources: int) -> Values:
        """A segment's values by name; more claims than there are experts are refused."""
        values = super().values(flat, sources)
        k = values.one("k")
        if k > sources - 1:
            raise RecipeError(f"k = {k:g} is impossible: there are {sources - 1} experts, so no weight would be kept")
        return values

    def merge(self, piece: Piece, values: Values, prepared: Any) -> Any:
        """Nothing is told about other elements, so any piece will do."""
        base, deltas = piece.theta[0], piece.deltas
        xp = namespace(deltas)
        together = self._together(deltas, prepared)
        claims = xp.zeros_like(base)
        for delta, claim in zip(deltas, values.each("lambda"), strict=True):
            claims += xp.abs(delta) >= claim * xp.abs(together - delta)
        return base + values.one("alpha") * xp.where(claims >= values.one("k"), together, 0.0)

    def _together(self, deltas: Any, prepared: Any) -> Any:
        """The merged task vector."""
        return namespace(deltas).sum(deltas, axis=0)


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

    def prepare(self, tensor: Tensor, values: Values) -> list[float]:
        """Each expert's threshold of magnitude."""
        density = values.one("density")
        return [model_threshold(tensor.model, expert, density) for expert in range(1, tensor.sources)]

    def _together(self, deltas: Any, prepared: list[float]) -> Any:
        xp = namespace(deltas)
        positive, negative = xp.zeros_like(deltas[0]), xp.zeros_like(deltas[0])
        for delta, threshold in zip(deltas, prepared, strict=True):
            trimmed = xp.where(xp.abs(delta) >= threshold, delta, 0.0)
            positive += xp.clip(trimmed, 0.0, None)
            negative += xp.clip(trimmed, None, 0.0)
        return xp.where(positive + negative >= 0.0, positive, negative)
