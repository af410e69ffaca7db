"""Reinforced Agent Merging: what one expert alone has changed is added, what several have is averaged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import BLOCK

_EPSILON = Parameter("epsilon", 1e-6, 1e-3, 1e-5, kind="log", limits=(0.0, float("inf")))


@dataclass(frozen=True)
class Ram(TensorOperator):
    """``theta_0 + sum_i a_i tau_i / max(1, sum_i a_i)`` with ``a_i = [|tau_i| > epsilon]`` (RAM, arXiv 2601.13572).

    What moved by no more than ``epsilon`` counts as not changed. This is mergekit's ram. Value: one epsilon.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (_EPSILON,)
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def merge(self, piece: Piece, values: Values, prepared: list[float] | None) -> Any:
        """Expert by expert; ``prepared`` is what each gets for what it alone has changed."""
        base, taus = piece.theta[0], piece.deltas
        xp = namespace(base)
        zeros = xp.zeros_like(taus)
        active = xp.abs(taus) > values.one("epsilon")
        changes = xp.where(active, taus, zeros)
        many = reduce(add, xp.where(active, zeros + 1.0, zeros))
        if prepared is not None:
            alone = many == 1
            changes = [xp.where(alone, gain * change, change) for gain, change in zip(prepared, changes, strict=True)]
        return base + reduce(add, changes) / xp.clip(many, 1.0, None)


@dataclass(frozen=True)
class RamPlus(Ram):
    """`Ram`, where what an expert alone has changed is enlarged by how much it shares with others.

    Tensor by tensor the factor is ``1 + r min(alpha, shared_i / unique_i)``: how many of the entries that expert i has
    changed others have changed as well, and how many not. This is mergekit's ramplus_tl. Values: one epsilon, r and
    alpha.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        _EPSILON,
        Parameter("r", 0.0, 1.0, 0.1, limits=(0.0, float("inf"))),
        Parameter("alpha", 0.0, 1.0, 0.2, limits=(0.0, float("inf"))),
    )

    def prepare(self, tensor: Tensor, values: Values) -> list[float]:
        """Each expert's factor."""
        shared = np.zeros(tensor.sources - 1, dtype=np.int64)
        unique = np.zeros_like(shared)
        for start, stop in chunks(tensor.size, BLOCK):
            base = tensor.read(0, start, stop)
            taus = [tensor.read(source, start, stop) - base for source in range(1, tensor.sources)]
            active = np.abs(taus) > np.float32(values.one("epsilon"))
            alone = np.count_nonzero(active, axis=0) == 1
            unique += np.count_nonzero(active & alone, axis=1)
            shared += np.count_nonzero(active & ~alone, axis=1)
        ratios = np.minimum(shared / np.maximum(unique, 1), values.one("alpha"))  # of none there is nothing to enlarge
        return [float(factor) for factor in 1.0 + values.one("r") * ratios]
