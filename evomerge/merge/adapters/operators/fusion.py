"""Factor fusion: adapters denoised and scaled factor by factor, as Evo-Merging searches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.merge.adapters.factors import Doubles, Factors, rounded
from evomerge.merge.adapters.port import FactorOperator, Module
from evomerge.merge.operators.port import Parameter, Values
from evomerge.merge.tensorfile import Floats


@dataclass(frozen=True)
class FactorFusion(FactorOperator):
    """``Delta W = (sum_i beta_i s_i B_i) (sum_j beta_j S(A_j; alpha_j))`` (Evo-Merging).

    ``S`` keeps the share ``alpha`` of a tensor's entries that is largest in magnitude, and all that equal the smallest
    of them. It keeps the rank. Cross terms ``beta_i beta_j B_i A_j`` make it depend on how each adapter's product is
    split into factors; ``beta`` and ``-beta`` are the same model, so a search may hold the first at 0 or above.
    Equal ranks are required. Values: one alpha per adapter, then one beta per adapter.
    """

    parameters: ClassVar = (
        Parameter("alpha", 0.0, 1.0, 1.0, "expert", limits=(0.0, 1.0)),
        Parameter("beta", -1.5, 1.5, 0.5, "expert"),
    )
    equal_ranks: ClassVar[bool] = True

    def merge(self, module: Module, values: Values) -> Factors | None:
        """Both sums; nothing where one of them has no term."""
        b: Doubles | None = None
        a: Doubles | None = None
        for alpha, beta, one in zip(values.each("alpha"), values.each("beta"), module.factors, strict=True):
            if one is not None and beta != 0.0:
                left = beta * one.scale * one.B.astype(np.float64)
                right = beta * sparse(one.A, alpha).astype(np.float64)
                b, a = (left, right) if b is None or a is None else (b + left, a + right)
        return None if b is None or a is None or not a.any() else rounded(b, a)


def sparse(values: Floats, keep: float) -> Floats:
    """The ``round(keep n)`` largest of n entries in magnitude, and all that equal the smallest of them; else 0."""
    dropped = values.size - round(keep * values.size)
    if not dropped:
        return values
    if dropped == values.size:
        return np.zeros_like(values)
    magnitudes = np.abs(values)
    threshold = np.partition(magnitudes, dropped, axis=None)[dropped]
    return np.where(magnitudes >= threshold, values, np.float32(0.0))
