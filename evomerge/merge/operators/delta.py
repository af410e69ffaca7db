"""The delta pipeline: what TIES, DARE, DELLA and breadcrumbs are made of.

Of each expert's delta ``tau_i = theta_i - theta_0`` some entries survive a sieve, and may be enlarged to make up for
the others; times the expert's weight they are what it says. Experts that pull an entry up are one camp, those that pull
it down the other. Either both are added up, or a sign is elected and the other camp is left out. The result is
``theta_0 + lambda delta``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import Array, Floats, chunks
from evomerge.merge.vectors import BLOCK

Election = Literal["sum", "count"]
"""Whether the sign of the sum of all says is elected, or that of most of them."""
Aggregation = Literal["mean", "sum", "max"]
"""What the says of the camp that wins become: their mean by the size of their weights, their sum, or the largest."""
Stored = tuple[Array, str]
"""An array as `STORED` holds it, and its dtype."""

WEIGHT = Parameter("weight", 0.0, 1.5, 1.0, "expert")
DENSITY = Parameter("density", 0.05, 1.0, 0.5, "expert", limits=(0.0, 1.0), above=True)
LAMBDA = Parameter("lambda", 0.1, 2.0, 1.0)

ALL = 1 << 16
"""The limit under which all random bits are."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which entries of a delta survive: those with ``low <= |tau| <= high`` whose random bits are under a limit.

    Survivors are multiplied by ``scale``.
    """

    low: float = 0.0
    high: float = math.inf
    limit: int = ALL
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Sieves:
    """One per expert.

    Attributes:
        numbers: (N, 4) float32: low, high, coefficient (weight times scale) and share, which is the size of the weight.
        limits: (N,) int64.
    """

    numbers: Floats
    limits: NDArray[np.int64]

    @classmethod
    def of(cls, sieves: Sequence[Sieve], weights: Sequence[float]) -> Sieves:
        """With the experts' weights. Coefficients are multiplied before they are rounded."""
        table = [
            (one.low, one.high, weight * one.scale, abs(weight)) for one, weight in zip(sieves, weights, strict=True)
        ]
        return cls(np.array(table, dtype=np.float32), np.array([one.limit for one in sieves], dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the says. Without an election they are added up; ``sign`` is the elected sign itself."""

    elect: Election | None = None
    result: Aggregation | Literal["sign"] = "sum"
    up: bool = True
    """Whether the camp that pulls up wins where none does: where all say nothing or cancel out."""


@dataclass(frozen=True)
class DeltaOperator(TensorOperator):
    """``theta_0 + lambda delta`` with a preset's sieves and plan.

    Values: one weight and one density (the share that survives) per expert, and lambda.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (WEIGHT, DENSITY, LAMBDA)
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def sieve(self, tensor: Tensor, source: int, values: Values) -> Sieve:
        """What the delta of an expert is sieved with."""

    def plan(self, tensor: Tensor, values: Values) -> Plan:
        """What becomes of what survives."""
        return Plan()

    def sieves(self, tensor: Tensor, values: Values) -> Sieves:
        """All experts'."""
        each = [self.sieve(tensor, source, values) for source in range(1, tensor.sources)]
        return Sieves.of(each, values.each("weight"))

    def prepare(self, tensor: Tensor, values: Values) -> tuple[Sieves, Plan]:
        """Sieves and plan of a tensor."""
        return self.sieves(tensor, values), self.plan(tensor, values)

    def merge(self, piece: Piece, values: Values, prepared: tuple[Sieves, Plan]) -> Any:
        """By a kernel on the CPU, and by the text of `blended` elsewhere."""
        sieves, plan = prepared
        bits = self.draw(piece, sieves)
        if piece.stored is None:
            return blended(piece.theta, bits, sieves, plan, values.one("lambda"))
        return fused(piece.stored, bits, sieves, plan, values.one("lambda"))

    def draw(self, piece: Piece, sieves: Sieves) -> list[Any]:
        """Random bits for each expert, ``None`` where all entries are under the limit."""
        return [None for _ in sieves.limits]


@dataclass(frozen=True)
class Electing(DeltaOperator):
    """A preset that elects a sign for every entry, and plus where there is none."""

    elect: Election = "sum"
    aggregate: Aggregation = "sum"

    def plan(self, tensor: Tensor, values: Values) -> Plan:
        """An election."""
        return Plan(self.elect, self.aggregate)


@dataclass(frozen=True)
class RandomDelta(DeltaOperator):
    """A preset whose entries survive at random; they are the same for the same ``seed``, in every merge."""

    seed: int = 0

    def draw(self, piece: Piece, sieves: Sieves) -> list[Any]:
        """Where needed."""
        limits = enumerate(sieves.limits.tolist(), start=1)
        return [piece.bits(self.seed, source) if limit < ALL else None for source, limit in limits]


def blended(theta: Any, bits: Sequence[Any], sieves: Sieves, plan: Plan, scale: float) -> Any:
    """``theta_0 + scale delta`` from all sources (1 + N, ...), and random bits for each expert that needs some."""
    return theta[0] + scale * settled(says(theta, bits, sieves), sieves.numbers[:, 3].tolist(), plan)


def says(theta: Any, bits: Sequence[Any], sieves: Sieves) -> list[Any]:
    """What survives of each expert's delta, times its coefficient."""
    xp = namespace(theta)
    found = []
    numbers = sieves.numbers[:, :3].tolist()
    for expert, drawn, limit, (low, high, coefficient) in zip(theta[1:], bits, sieves.limits, numbers, strict=True):
        tau = expert - theta[0]
        size = xp.abs(tau)
        survives = (size >= low) & (size <= high)
        if drawn is not None:
            survives &= drawn < int(limit)
        found.append(xp.where(survives, coefficient * tau, xp.zeros_like(tau)))
    return found


def settled(says: Sequence[Any], shares: Sequence[float], plan: Plan) -> Any:
    """What becomes of the experts' says."""
    xp = namespace(says[0])
    zero = xp.zeros_like(says[0])
    up = [xp.where(say > 0, say, zero) for say in says]
    down = [xp.where(say < 0, say, zero) for say in says]
    if plan.elect is None:
        return _sum(up) + _sum(down)
    votes = _sum(up) + _sum(down) if plan.elect == "sum" else _sum([xp.sign(say) for say in says])
    if plan.result == "sign":
        return xp.sign(votes)
    wins = votes >= 0 if plan.up else votes > 0
    return xp.where(wins, camp(up, shares, plan.result), camp(down, shares, plan.result))


def camp(says: Sequence[Any], shares: Sequence[float], result: Aggregation) -> Any:
    """What says of one sign come to. Where an expert says nothing it is no member."""
    xp = namespace(says[0])
    if result == "max":
        return reduce(lambda best, say: xp.where(xp.abs(say) > xp.abs(best), say, best), says)
    if result == "sum":
        return _sum(says)
    zero = xp.zeros_like(says[0])
    weight = _sum([xp.where(say != 0, zero + share, zero) for say, share in zip(says, shares, strict=True)])
    return _sum(says) / xp.where(weight > 0, weight, zero + 1)


def _sum(terms: Sequence[Any]) -> Any:
    """Left to right, on any device."""
    return reduce(add, terms, namespace(terms[0]).zeros_like(terms[0]))


def fused(stored: Sequence[Stored], bits: Sequence[Any], sieves: Sieves, plan: Plan, scale: float) -> Floats:
    """The same bytes as `blended`, in one pass over memory, from all sources as they are stored."""
    from evomerge.merge.kernels.delta import ELECTIONS, RESULTS, blend

    rules = np.array([ELECTIONS[plan.elect], RESULTS[plan.result], plan.up])
    limits = np.minimum(sieves.limits, ALL - 1).astype(np.uint16)
    return blend(stored, bits, sieves.numbers, limits, rules, scale)


def l1_scale(tensor: Tensor, source: int, sieve: Sieve, seed: int = 0) -> float:
    """``||tau||_1 / ||s||_1`` of a tensor, s what survives of tau; 1 where nothing does. Sums over fixed blocks."""
    whole, kept = [], []
    for start, stop in chunks(tensor.size, BLOCK):
        sizes = np.abs(tensor.read(source, start, stop) - tensor.read(0, start, stop))
        survives = (sizes >= sieve.low) & (sizes <= sieve.high)
        if sieve.limit < ALL:
            survives &= tensor.bits(seed, source, start, stop) < sieve.limit
        whole.append(float(np.add.reduce(sizes, dtype=np.float64)))
        kept.append(float(np.add.reduce(sizes[survives], dtype=np.float64)))
    total = math.fsum(kept)
    return math.fsum(whole) / total if total > 0.0 else 1.0
