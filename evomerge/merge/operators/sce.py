"""SCE: select, calculate, erase."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.operators.statistics import Streamed, sums
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import BLOCK


@dataclass(frozen=True)
class Sce(TensorOperator):
    """``theta_0 + lambda delta`` with weights from the deltas themselves, tensor by tensor (SCE, Wan et al. 2024).

    1. Select: of the entries in which experts differ, the share ``density`` with the largest variance over them, and
       all that equal the smallest of these; the other entries count as zero. 1 selects all entries.
    2. Calculate: ``omega_i``, the mean square of ``tau_i``, divided by the sum of all experts'.
    3. Erase: what has not the sign of ``sum_i tau_i`` (plus where that is zero). ``delta`` is the mean of what is left,
       weighted by omega.

    mergekit's sce is this with ``density = select_topk``, which it applies rounded down, and ``lambda = 1``. Where the
    mean squares sum to less than 1e-6, as they do for most language models, its weights silently become equal, and a
    weighted sum of small weights is divided by 1e-6: neither is copied. Experts without any difference weigh nothing.

    Equal experts have no variance: a density below 1 gives the base. Values: one density and lambda.
    """

    parameters: ClassVar = (
        Parameter("density", 0.05, 1.0, 1.0, limits=(0.0, 1.0), above=True),
        Parameter("lambda", 0.1, 2.0, 1.0),
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def prepare(self, tensor: Tensor, values: Values) -> tuple[float, list[float]]:
        """The least variance that is selected, and omega."""
        least = _least(tensor, values.one("density"))
        squares = [
            sums(tensor, source).square if least == 0.0 else _square(tensor, source, least)
            for source in range(1, tensor.sources)
        ]
        total = math.fsum(squares)
        return least, [square / total if total > 0.0 else 0.0 for square in squares]

    def merge(self, piece: Piece, values: Values, prepared: tuple[float, list[float]]) -> Any:
        """Sums left to right."""
        least, omega = prepared
        base, taus = piece.theta[0], piece.deltas
        xp = namespace(base)
        zero = xp.zeros_like(base)
        if least > 0.0:
            taus = xp.where(variance(taus) >= least, taus, zero)
        up = reduce(add, taus) >= 0
        agree = [xp.where(up, tau > 0, tau < 0) for tau in taus]
        each = list(zip(omega, taus, agree, strict=True))
        delta = reduce(add, [xp.where(agrees, weight * tau, zero) for weight, tau, agrees in each])
        weight = reduce(add, [xp.where(agrees, zero + weight, zero) for weight, _, agrees in each])
        return base + values.one("lambda") * (delta / xp.where(weight > 0, weight, zero + 1))


def variance(taus: Any) -> Any:
    """Over the experts (N, ...), float32: the mean square of what differs from the mean."""
    mean = reduce(add, taus) / len(taus)
    return reduce(add, [(tau - mean) * (tau - mean) for tau in taus]) / len(taus)


def _least(tensor: Tensor, density: float) -> float:
    """The smallest variance that is selected; 0 selects all, infinity nothing."""
    if density >= 1.0:
        return 0.0
    found = Streamed(lambda: (variance(taus) for taus in _deltas(tensor)))
    return found.nth_largest(max(1, round(density * found.positive))) if found.positive else math.inf


def _square(tensor: Tensor, source: int, least: float) -> float:
    """Sum of squares of one expert's selected entries."""

    def parts() -> Iterator[float]:
        for taus in _deltas(tensor):
            chosen = taus[source - 1][variance(taus) >= least].astype(np.float64)
            yield float(np.add.reduce(chosen * chosen))

    return math.fsum(parts())


def _deltas(tensor: Tensor) -> Iterator[Floats]:
    """Of all experts, (N, m), in blocks that are always the same."""
    for start, stop in chunks(tensor.size, BLOCK):
        base = tensor.read(0, start, stop)
        yield np.stack([tensor.read(source, start, stop) - base for source in range(1, tensor.sources)])
