"""Task vectors whose entries compete: within each expert by size, between experts by agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.once import Once
from evomerge.merge.operators.arrays import beside
from evomerge.merge.operators.competition import VARIANTS, Cut, Variant, blocks, model_cut
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.sparse import PAGE, Packed, SparseRows, pack
from evomerge.merge.tensorfile import Floats

_BLOCK = 32 * PAGE
"""Elements of a tensor whose weighed task vectors are one entry of the pool's cache."""


@dataclass(frozen=True)
class PCB(TensorOperator):
    """``theta_0 + sum_i lambda_i tau_i S_i / sum_j S_j`` (Du et al. 2024, parameter competition balancing).

    ``tau_i = theta_i - theta_0``, its magnitudes clipped to their quantiles ``q`` and ``1 - q``, and ``z_i`` the same
    magnitudes scaled to [0, 1], with their signs. An entry's score is ``exp(N z_i^2)`` (competition within an expert)
    times, by variant, C: ``sum_j tanh(z_i z_j)``, B: ``tanh(tau_i sum_j z_j)``, A: ``tanh(tau_i sum_j tau_j)`` (between
    experts). S is the score scaled to [0, 1] from its quantile ``1 - r`` up, and 0 below, so the share ``r`` of each
    expert counts. All quantiles are over the whole model. Only C means the same for task vectors of any scale.

    What S leaves is found once per pool, ``r`` and ``q``; a candidate is then one weighted sum. Values: one ``lambda``
    per expert, ``r``, ``q``.
    """

    variant: Variant = "C"

    parameters: ClassVar = (
        Parameter("lambda", 0.8, 1.3, 1.2, "expert"),
        Parameter("r", 0.01, 0.3, 0.1, limits=(0.0, 1.0), above=True),
        Parameter("q", 1e-4, 0.05, 0.01, kind="log", limits=(0.0, 0.49)),
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise RecipeError(f"pcb has no variant {self.variant!r}; it is 'C', 'B' or 'A'")

    def prepare(self, tensor: Tensor, values: Values) -> _Weighed:
        """Which scores count in every expert; what that leaves of this tensor is found block by block."""
        return _Weighed(tensor, model_cut(tensor.model, self.variant, values.one("r"), values.one("q")))

    def merge(self, piece: Piece, values: Values, prepared: _Weighed) -> Any:
        """Reads the base alone."""
        base = piece.source(0)
        delta = np.zeros(base.shape, dtype=np.float32)
        prepared.add(piece.start, values.each("lambda"), delta)
        return base + beside(delta, base)


@dataclass(frozen=True)
class _Weighed:
    """``tau_i S_i / sum_j S_j`` of every expert on one tensor, from the pool's cache."""

    tensor: Tensor
    cut: Cut
    recent: Once = field(default_factory=lambda: Once(2))

    def add(self, start: int, lambdas: Sequence[float], out: Floats) -> None:
        """Add their weighted sum, from flat index ``start`` on, to ``out``."""
        stop = start + out.size
        for first in range(start // _BLOCK * _BLOCK, stop, _BLOCK):
            rows = SparseRows(self._block(first), len(lambdas))
            low, high = max(start, first), min(stop, first + _BLOCK)
            for expert, weight in enumerate(lambdas):
                rows.add(expert, low - first, weight, out[low - start : high - start])

    def _block(self, first: int) -> Packed:
        def compute() -> Packed:
            stop = min(self.tensor.size, first + _BLOCK)
            return pack(self.cut.weighed(theta) for theta in blocks(self.tensor, first, stop))

        return self.recent.get(first, lambda: self.tensor.remember(f"{self.cut.key} from {first}", compute))
