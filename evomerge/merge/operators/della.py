"""DELLA: drop at random, but the larger the rarer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.delta import (
    ALL,
    DENSITY,
    LAMBDA,
    WEIGHT,
    Aggregation,
    Election,
    Plan,
    Sieve,
    Sieves,
    fused,
    settled,
)
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Grain, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Odds:
    """For an entry of each rank in its row, from the smallest: under which limit its bits must be, and its factor."""

    limits: NDArray[np.int32]
    factors: Floats


@dataclass(frozen=True)
class DellaLinear(TensorOperator):
    """``theta_0 + lambda sum_i w_i s_i``, ``s_i`` what survives of ``tau_i`` (MagPrune, Deep et al. 2024).

    In each row of n entries the one of rank r (1 the smallest; of equal ones, the first) survives with probability
    ``density - e + 2 e (r - 1) / (n - 1)``, ``e = spread min(density, 1 - density)``, to a multiple of 1/65536; the one
    of a row of one, with probability ``density``. A survivor is divided by its own probability (``rescale =
    "exact"``, so that the expectation is ``tau_i``), or all are enlarged, per tensor, to ``||tau_i||_1`` (``"l1"``,
    mergekit's della_linear, which favours large entries), or neither (``"none"``). mergekit's ``epsilon`` is e; it has
    no result for rows of one entry. A tensor of one axis is a row. The masks depend on the ``seed`` and the names of
    source and tensor alone.

    Values: one weight, density and spread per expert, and lambda.
    """

    rescale: Literal["exact", "l1", "none"] = "exact"
    seed: int = 0

    parameters: ClassVar[tuple[Parameter, ...]] = (
        replace(WEIGHT, default=0.5),
        DENSITY,
        Parameter("spread", 0.0, 1.0, 0.3, "expert", limits=(0.0, 1.0)),
        LAMBDA,
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    def plan(self) -> Plan:
        """What becomes of what survives."""
        return Plan()

    def grain(self, tensor: Tensor) -> Grain:
        """Ranks are those of a row."""
        return "row"

    def prepare(self, tensor: Tensor, values: Values) -> list[Odds]:
        """Each expert's odds."""
        return [self._odds(tensor, source, values) for source in range(1, tensor.sources)]

    def _odds(self, tensor: Tensor, source: int, values: Values) -> Odds:
        weight, density, spread = (values.each(name)[source - 1] for name in ("weight", "density", "spread"))
        columns = tensor.shape[-1] if tensor.shape else 1
        rank = np.arange(columns) / (columns - 1) if columns > 1 else np.array([0.5])
        e = spread * min(density, 1.0 - density)
        limits = np.rint((density - e + 2.0 * e * rank) * ALL).astype(np.int32)
        factors = np.full(columns, weight)
        if self.rescale == "exact":
            factors *= ALL / np.maximum(limits, 1)
        elif self.rescale == "l1":
            factors *= self._l1_scale(tensor, source, limits)
        return Odds(limits, factors.astype(np.float32))

    def _l1_scale(self, tensor: Tensor, source: int, limits: NDArray[np.int32]) -> float:
        """``||tau||_1 / ||s||_1``; rows are summed one by one."""
        whole, kept = [], []
        for piece in tensor.pieces("row"):
            sizes = np.abs(piece.source(source) - piece.source(0))
            survives = piece.bits(self.seed, source) < limits[ranks(sizes)]
            whole.append(np.add.reduce(sizes, axis=-1, dtype=np.float64))
            kept.append(np.add.reduce(np.where(survives, sizes, np.float32(0.0)), axis=-1, dtype=np.float64))
        total = math.fsum(np.concatenate(kept))
        return math.fsum(np.concatenate(whole)) / total if total > 0.0 else 1.0

    def merge(self, piece: Piece, values: Values, prepared: list[Odds]) -> Any:
        """Expert by expert, then together."""
        theta, scale = piece.theta, values.one("lambda")
        shares = [abs(weight) for weight in values.each("weight")]
        says = [
            thinned(expert - theta[0], piece.bits(self.seed, source), odds)
            for source, (expert, odds) in enumerate(zip(theta[1:], prepared, strict=True), start=1)
        ]
        together = _fused if isinstance(theta, np.ndarray) else settled
        return theta[0] + scale * together(says, shares, self.plan())


@dataclass(frozen=True)
class Della(DellaLinear):
    """`DellaLinear`, but only survivors of the elected sign count (DELLA, Deep et al. 2024).

    The sign of an entry is that of ``sum_i w_i s_i``, or that of most survivors (``elect``); plus where that is zero.
    Of what has that sign, the ``mean`` weighted by w, the ``sum`` or the ``max`` (``aggregate``). mergekit's della is
    ``rescale = "l1"``, and with ``normalize: false`` ``aggregate = "sum"``.

    Values: one weight, density and spread per expert, and lambda.
    """

    elect: Election = "sum"
    aggregate: Aggregation = "mean"

    def plan(self) -> Plan:
        """An election."""
        return Plan(self.elect, self.aggregate)


def thinned(tau: Any, bits: Any, odds: Odds) -> Any:
    """What survives of a delta's rows (..., rows, columns), times its factors."""
    xp = namespace(tau)
    rank = ranks(xp.abs(tau))
    survives = bits < beside(odds.limits, tau)[rank]
    return xp.where(survives, beside(odds.factors, tau)[rank] * tau, xp.zeros_like(tau))


def ranks(sizes: Any) -> Any:
    """Ranks of magnitudes in each row, from 0; equal ones in order."""
    xp = namespace(sizes)
    if not isinstance(sizes, np.ndarray):
        return xp.argsort(xp.argsort(sizes, axis=-1, stable=True), axis=-1)
    # magnitude and place as one number: sorting plain numbers is many times as fast as sorting places
    columns = np.arange(sizes.shape[-1], dtype=np.uint64)
    keys = sizes.view(np.uint32).astype(np.uint64) << np.uint64(32) | columns
    keys.sort(axis=-1)
    found = np.empty(sizes.shape, dtype=np.int64)
    np.put_along_axis(found, (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), columns.astype(np.int64), axis=-1)
    return found


def _fused(says: Sequence[Floats], shares: Sequence[float], plan: Plan) -> Floats:
    """`settled` in one pass: a merge over a base of zeros."""
    sieves = Sieves.of([Sieve()] * len(says), [1.0] * len(says), shares)
    stored = [(each.reshape(-1), "F32") for each in (np.zeros_like(says[0]), *says)]
    return fused(stored, 0, sieves, plan, 1.0).reshape(says[0].shape)
