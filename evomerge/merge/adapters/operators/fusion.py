"""Factor fusion: adapters denoised and scaled factor by factor, as Evo-Merging searches them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from evomerge.merge.adapters.factors import Doubles, Factors, rounded, total
from evomerge.merge.adapters.operators.svd import compressed
from evomerge.merge.adapters.port import FactorOperator, Module
from evomerge.merge.operators.port import Parameter, Values
from evomerge.merge.tensorfile import Floats

Term = tuple[float, Factors]
"""beta_i, and an adapter whose A is sparse already."""


@dataclass(frozen=True)
class FactorFusion(FactorOperator):
    """Adapters with a sparse ``A``, scaled by signed numbers: how Evo-Merging (arXiv 2509.12951) searches them.

    ``S(A_i; alpha_i)`` keeps the share ``alpha`` of a tensor's entries that is largest in magnitude, and all that equal
    the smallest of them; only ``A`` is made sparse. ``mode`` says how the adapters are then summed:

    * ``ab_separate``, as published: ``Delta W = (sum_i beta_i s_i B_i) (sum_j beta_j S(A_j))``. Cross terms
      ``beta_i beta_j B_i A_j`` depend on how each product is split into factors, and an adapter's own term has
      ``beta_i^2``: signs cancel there, ``beta`` and ``-beta`` are the same model.
    * ``sqrt_sign``, as PEFT's ``linear``: the root of ``|beta_i s_i|`` on both sides and the sign on ``A`` alone, so
      that a negative beta subtracts. Cross terms remain.
    * ``concat``: ``Delta W = sum_i beta_i s_i B_i S(A_i)`` exactly. The ranks add up.
    * ``svd``: the same, compressed to the largest rank among the adapters.

    The first two keep the rank and need equal ones. Values: one alpha per adapter, then one beta per adapter.
    """

    mode: Literal["ab_separate", "sqrt_sign", "concat", "svd"] = "ab_separate"

    parameters: ClassVar = (
        Parameter("alpha", 0.0, 1.0, 1.0, "expert", limits=(0.0, 1.0)),
        Parameter("beta", -1.5, 1.5, 0.5, "expert"),
    )

    @property
    def equal_ranks(self) -> bool:
        """Sums of factors need them."""
        return self.mode in ("ab_separate", "sqrt_sign")

    def merge(self, module: Module, values: Values) -> Factors | None:
        """Sparse first, then summed; nothing where no term is left."""
        each = zip(values.each("alpha"), values.each("beta"), module.factors, strict=True)
        terms = [
            (beta, Factors(one.B, sparse(one.A, alpha), one.scale))
            for alpha, beta, one in each
            if one is not None and beta != 0.0
        ]
        if self.mode == "concat":
            return total([(beta, one) for beta, one in terms if one.A.any()])
        if self.mode == "svd":
            return compressed(terms, max(one.rank for one in module.factors if one is not None))
        sums = [(beta * one.scale, beta) for beta, one in terms]
        if self.mode == "sqrt_sign":
            roots = [(math.sqrt(abs(c)), c) for c, _ in sums]
            sums = [(root, math.copysign(root, c)) for root, c in roots]
        return _fused(terms, sums)


def _fused(terms: Sequence[Term], coefficients: Sequence[tuple[float, float]]) -> Factors | None:
    """``(sum_i u_i B_i) (sum_j v_j A_j)``, ``None`` if one of them has no term."""
    b: Doubles | None = None
    a: Doubles | None = None
    for (u, v), (_, one) in zip(coefficients, terms, strict=True):
        left, right = u * one.B.astype(np.float64), v * one.A.astype(np.float64)
        b, a = (left, right) if b is None or a is None else (b + left, a + right)
    return None if b is None or a is None or not a.any() else rounded(b, a)


def sparse(values: Floats, keep: float) -> Floats:
    """The ``round(keep n)`` largest of n entries in magnitude, and all that equal the smallest of them; else 0.

    At least one where ``keep`` is above 0.
    """
    kept = max(round(keep * values.size), 1 if keep > 0.0 and values.size else 0)
    dropped = values.size - kept
    if not dropped:
        return values
    if not kept:
        return np.zeros_like(values)
    magnitudes = np.abs(values)
    threshold = np.partition(magnitudes, dropped, axis=None)[dropped]
    return np.where(magnitudes >= threshold, values, np.float32(0.0))
