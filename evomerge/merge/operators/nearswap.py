"""Interpolation that is strongest where two models differ least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Parameter, Piece, TensorOperator, Values


@dataclass(frozen=True)
class NearSwap(TensorOperator):
    """``c theta_1 + (1 - c) theta_0`` with ``c = min(1, t / |theta_1 - theta_0|)``, element by element (mergekit).

    The first source is the base. Where the models agree to within ``t`` the second is taken. Value: one ``t``, usually
    near the size of small differences.
    """

    parameters: ClassVar = (Parameter("t", 1e-6, 1e-2, 1e-4, kind="log", limits=(0.0, float("inf"))),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    based: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def merge(self, piece: Piece, values: Values, prepared: Any) -> Any:
        """Both ends are exact: at ``c = 1`` the second source, at ``t = 0`` the base wherever they differ."""
        base, other = piece.theta
        xp = namespace(base)
        t = values.one("t")
        distance = xp.abs(other - base)
        c = t / xp.clip(distance, t, None) if t > 0.0 else xp.zeros_like(base)
        return c * other + (1.0 - c) * base
