"""TIES: trim, elect sign, merge."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from evomerge.merge.operators.delta import (
    LAMBDA,
    WEIGHT,
    Aggregation,
    Election,
    Plan,
    Rescaled,
    Sieve,
    fused,
)
from evomerge.merge.operators.port import Model, Parameter, Tensor, Values
from evomerge.merge.operators.statistics import model_threshold, threshold
from evomerge.merge.parallel import run
from evomerge.merge.tensorfile import chunks

Scope = Literal["model", "tensor"]

_SPAN = 1 << 18
"""Entries whose signs are held at a time."""


@dataclass(frozen=True)
class Ties(Rescaled):
    """TIES-Merging (Yadav et al. 2023): ``theta_0 + lambda delta``.

    1. Trim: of each ``tau_i`` the share ``density`` of largest magnitude survives, over the whole model or per tensor
       (``scope``); of a tensor at least one entry, and all that equal the smallest survivor.
    2. Elect: the sign of ``sum_i w_i tau_i`` over survivors, or that of most survivors (``elect``). Where that is zero
       the ``majority`` of all signs elected in the model decides, which takes another pass over it, or ``plus``
       (``zero``).
    3. Merge: of the survivors with that sign the ``mean`` weighted by w, the ``sum`` or the ``max`` of ``w_i tau_i``
       (``aggregate``). With ``rescale = "l1"`` they are first enlarged, per expert and tensor, to ``||tau_i||_1``.

    mergekit's ties is ``scope = "tensor"``, ``zero = "plus"`` with ``aggregate = "mean"`` (its ``normalize``) or
    ``"sum"``. It rounds ``density n`` down, keeps only some of equal entries, and divides by the signed sum of weights,
    so that an expert with a negative weight is added where it stands alone; here that mean goes by the size of weights.

    Values: one weight and one density per expert, and lambda.
    """

    scope: Scope = "model"
    elect: Election = "sum"
    zero: Literal["majority", "plus"] = "majority"
    aggregate: Aggregation = "mean"

    parameters: ClassVar[tuple[Parameter, ...]] = (
        WEIGHT,
        Parameter("density", 0.05, 1.0, 0.2, "expert", limits=(0.0, 1.0), above=True),
        LAMBDA,
    )

    def sieve(self, tensor: Tensor, source: int, values: Values) -> Sieve:
        """By magnitude."""
        density = values.each("density")[source - 1]
        if self.scope == "model":
            low = model_threshold(tensor.model, source, density)
        else:
            low = threshold(tensor, source, max(density, 1.0 / max(tensor.size, 1)))
        return Sieve(low=low)

    def plan(self, tensor: Tensor, values: Values) -> Plan:
        """An election; of one expert there are no two camps that could cancel out."""
        up = self.zero == "plus" or tensor.sources == 2 or self._majority(tensor.model, values)
        return Plan(self.elect, self.aggregate, up)

    def _majority(self, model: Model, values: Values) -> bool:
        """Whether at least as many entries of the model are elected up as down."""
        signs = Plan(self.elect, "sign")

        def net(tensor: Tensor) -> float:
            sieves, total = self.sieves(tensor, values), 0.0
            for start, stop in chunks(tensor.size, _SPAN):
                stored = [tensor.stored(source, start, stop) for source in range(tensor.sources)]
                total += float(np.add.reduce(fused(stored, start, sieves, signs, 1.0), dtype=np.float64))
            return total

        def compute() -> bool:
            with closing(run((partial(net, tensor) for tensor in model.tensors()), model.threads)) as nets:
                return sum(nets) >= 0.0

        return model.once(("majority", self, values), compute)
