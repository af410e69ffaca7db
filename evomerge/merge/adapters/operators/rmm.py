"""Reversible merging: a few directions per row that hold all adapters, and any mixture of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.merge.adapters.factors import Doubles, Factors, rounded
from evomerge.merge.adapters.port import FactorOperator, Module
from evomerge.merge.operators.port import Parameter, Values
from evomerge.merge.tensorfile import Floats


@dataclass(frozen=True)
class RMM(FactorOperator):
    """Reversible model merging of low-rank weights (RMM, Alipour and Amiri 2025), read out at a mixture of adapters.

    For each column of ``A`` and each row of ``s B``, the n adapters' vectors there are the columns of ``X`` (r x n).
    With their mean ``m`` and the ``p`` leading left singular vectors ``U`` of ``X - m``, adapter i is kept as ``p``
    coefficients, ``C = U' (X - m)``, and the result is ``m sum_i w_i + U C w``. So weight 1 for one adapter alone gives
    that adapter back, up to the energy beyond ``p``, and exactly with ``p >= min(r, n - 1)``; ``p = 0`` is the mean of
    the factors. It has the cross terms of ``lora_linear``. An adapter that leaves a tensor alone counts as zero there.
    Equal ranks are required. Values: one weight per adapter, then ``p``.
    """

    parameters: ClassVar = (
        Parameter("weight", 0.0, 1.0, 0.5, "expert"),
        Parameter("p", 0.0, 8.0, 1.0, kind="integer", limits=(0.0, math.inf)),
    )

    @property
    def equal_ranks(self) -> bool:
        """Factors are added to one another."""
        return True

    def merge(self, module: Module, values: Values) -> Factors | None:
        """Both factors on their own, rows of ``B`` and columns of ``A``."""
        out, into = module.shape
        rank = next(one.rank for one in module.factors if one is not None)
        zero = Factors(np.zeros((out, rank), np.float32), np.zeros((rank, into), np.float32))
        adapters = [zero if one is None else one for one in module.factors]
        rows = np.stack([one.scale * one.B.astype(np.float64) for one in adapters])
        columns = np.stack([one.A.T.astype(np.float64) for one in adapters])
        weights, p = np.array(values.each("weight")), round(values.one("p"))
        if not weights.any():
            return None
        if p < min(rank, len(adapters) - 1):
            bases = module.remember("rmm: bases", lambda: {"B": basis(rows), "A": basis(columns)})
            rows, columns = kept(rows, bases["B"][..., :p]), kept(columns, bases["A"][..., :p])
        return rounded(mixture(rows, weights), mixture(columns, weights).T)


def basis(x: Doubles) -> Floats:
    """Right singular vectors of ``X - m`` at each place, leading ones first.

    ``x`` is (n, places, r); the result is (places, n, n), a vector per column.
    """
    deviations = np.swapaxes(x - x.mean(axis=0), 0, 1)
    _, vectors = np.linalg.eigh(deviations @ np.swapaxes(deviations, 1, 2))
    return np.ascontiguousarray(vectors[..., ::-1], dtype=np.float32)


def kept(x: Doubles, v: Floats) -> Doubles:
    """What the coefficients in the directions ``v`` (places, n, p) still say of ``x``: ``m + (X - m) V V'``."""
    mean: Doubles = x.mean(axis=0)
    deviations = np.swapaxes(x - mean, 0, 1)
    directions = v.astype(np.float64)
    held = directions @ (np.swapaxes(directions, 1, 2) @ deviations)
    return mean + np.asarray(np.swapaxes(held, 0, 1), dtype=np.float64)


def mixture(x: Doubles, weights: Doubles) -> Doubles:
    """``sum_i w_i x_i``, left to right."""
    out = np.zeros(x.shape[1:])
    for one, weight in zip(x, weights, strict=True):
        if weight != 0.0:
            out += weight * one
    return out
