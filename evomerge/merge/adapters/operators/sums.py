"""Weighted sums of adapters: of what they add, or of their factors apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.merge.adapters.factors import Factors, rounded, total
from evomerge.merge.adapters.port import FactorOperator, Module, present
from evomerge.merge.operators.port import Parameter, Values

WEIGHT = Parameter("weight", 0.0, 1.5, 0.5, "expert")


@dataclass(frozen=True)
class LoraCat(FactorOperator):
    """``Delta W = sum_i w_i s_i B_i A_i`` exactly, by concatenation: ranks add up (PEFT's ``cat``).

    The same model as ``task_arithmetic`` over the adapters, with an adapter of rank ``sum_i r_i`` to show for it.
    Values: one weight per adapter; adapters of weight 0 are left out.
    """

    parameters: ClassVar = (WEIGHT,)

    def merge(self, module: Module, values: Values) -> Factors | None:
        """Each weight within its own columns of ``B``."""
        return total(present(module, "weight", values))


@dataclass(frozen=True)
class LoraLinear(FactorOperator):
    """``Delta W = (sum_i sqrt(|c_i|) B_i) (sum_j sgn(c_j) sqrt(|c_j|) A_j)``, ``c_i = w_i s_i`` (PEFT's ``linear``).

    Not the sum of what the adapters add: it has the cross terms ``B_i A_j``, and N equal adapters with weights ``1/N``
    give N times the adapter. It keeps the rank, and depends on how each product is split into factors; ``lora_svd``
    keeps the rank without either. Equal ranks are required. Values: one weight per adapter.
    """

    parameters: ClassVar = (WEIGHT,)

    @property
    def equal_ranks(self) -> bool:
        """Factors are added to one another."""
        return True

    def merge(self, module: Module, values: Values) -> Factors | None:
        """The roots of the weights on both sides, their signs on ``A``."""
        terms = [(weight * one.scale, one) for weight, one in present(module, "weight", values)]
        if not any(c for c, _ in terms):
            return None
        roots = [math.sqrt(abs(c)) for c, _ in terms]
        b = sum(root * one.B.astype(np.float64) for root, (_, one) in zip(roots, terms, strict=True))
        a = sum(math.copysign(root, c) * one.A.astype(np.float64) for root, (c, one) in zip(roots, terms, strict=True))
        return rounded(np.asarray(b), np.asarray(a))
