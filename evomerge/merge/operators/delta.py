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
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import Array, Floats, chunks

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
_SPAN = 1 << 20
"""Entries that are summed in one go. Fixed: sums must not depend on how tensors are cut."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which entries of a delta survive: those with ``low <= |tau| <= high`` whose random bits are under a limit."""

    low: float = 0.0
    high: float = math.inf
    limit: int = ALL


class Sieves(NamedTuple):
    """All experts' sieves and weights, as arrays."""

    numbers: Floats
    """(N, 4): low, high, the coefficient of survivors, and the size of the weight."""
    limits: NDArray[np.int64]
    """(N,)."""
    streams: NDArray[np.uint32]
    """(N, 4): the streams of random bits."""

    @classmethod
    def of(
        cls,
        sieves: Sequence[Sieve],
        coefficients: Sequence[float],
        weights: Sequence[float],
        streams: NDArray[np.uint32] | None = None,
    ) -> Sieves:
        """Numbers are rounded to float32 here."""
        each = zip(sieves, coefficients, weights, strict=True)
        table = [(sieve.low, sieve.high, coefficient, abs(weight)) for sieve, coefficient, weight in each]
        none = np.zeros((len(sieves), 4), dtype=np.uint32)
        limits = np.array([sieve.limit for sieve in sieves], dtype=np.int64)
        return cls(np.array(table, dtype=np.float32), limits, none if streams is None else streams)


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
    fused: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def sieve(self, tensor: Tensor, source: int, values: Values) -> Sieve:
        """What the delta of an expert is sieved with."""

    def plan(self, tensor: Tensor, values: Values) -> Plan:
        """What becomes of what survives."""
        return Plan()

    def scales(self, tensor: Tensor, sieves: Sequence[Sieve]) -> Sequence[float]:
        """What survivors of each expert's are multiplied with."""
        return [1.0 for _ in sieves]

    def streams(self, tensor: Tensor) -> NDArray[np.uint32]:
        """Each expert's stream of random bits, (N, 4)."""
        return np.zeros((tensor.sources - 1, 4), dtype=np.uint32)

    def sieves(self, tensor: Tensor, values: Values) -> Sieves:
        """All experts'."""
        each = [self.sieve(tensor, source, values) for source in range(1, tensor.sources)]
        scaled = zip(values.each("weight"), self.scales(tensor, each), strict=True)
        return Sieves.of(
            each, [weight * scale for weight, scale in scaled], values.each("weight"), self.streams(tensor)
        )

    def prepare(self, tensor: Tensor, values: Values) -> tuple[Sieves, Plan]:
        """Sieves and plan of a tensor."""
        return self.sieves(tensor, values), self.plan(tensor, values)

    def merge(self, piece: Piece, values: Values, prepared: tuple[Sieves, Plan]) -> Any:
        """By a kernel on the CPU, and by the text of `blended` elsewhere."""
        sieves, plan = prepared
        if piece.stored is None:
            return blended(piece.theta, self.draw(piece, sieves), sieves, plan, values.one("lambda"))
        return fused(piece.stored, piece.start, sieves, plan, values.one("lambda"))

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
class Rescaled(DeltaOperator):
    """A preset that may enlarge survivors, per expert and tensor, to ``||tau_i||_1`` (``l1``)."""

    rescale: Literal["none", "l1"] = "none"

    def scales(self, tensor: Tensor, sieves: Sequence[Sieve]) -> Sequence[float]:
        """By what is lost."""
        return l1_scales(tensor, sieves) if self.rescale == "l1" else super().scales(tensor, sieves)


@dataclass(frozen=True)
class RandomDelta(DeltaOperator):
    """A preset whose entries survive at random, the same ones for the same ``seed``.

    Survivors are divided by the probability of that (``exact``), enlarged to ``||tau_i||_1`` (``l1``), or as they are.
    """

    rescale: Literal["exact", "l1", "none"] = "exact"
    seed: int = 0

    def scales(self, tensor: Tensor, sieves: Sequence[Sieve]) -> Sequence[float]:
        """By what is lost, in expectation or in fact."""
        if self.rescale == "l1":
            return l1_scales(tensor, sieves, self.streams(tensor))
        return [ALL / sieve.limit if self.rescale == "exact" else 1.0 for sieve in sieves]

    def streams(self, tensor: Tensor) -> NDArray[np.uint32]:
        """Of this seed."""
        return np.stack([tensor.bit_stream(self.seed, source) for source in range(1, tensor.sources)])

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


def fused(stored: Sequence[Stored], start: int, sieves: Sieves, plan: Plan, scale: float) -> Floats:
    """The same bytes as `blended`, in one pass over memory, from all sources as they are stored from ``start`` on."""
    from evomerge.merge.kernels.delta import ELECTIONS, RESULTS, blend

    return blend(stored, start, sieves, (ELECTIONS[plan.elect], RESULTS[plan.result], plan.up), scale)


def l1_scales(tensor: Tensor, sieves: Sequence[Sieve], streams: NDArray[np.uint32] | None = None) -> list[float]:
    """``||tau_i||_1 / ||s_i||_1`` of a tensor, s_i what survives of tau_i; 1 where nothing does."""
    from evomerge.merge.kernels.delta import l1_sums

    ones = [1.0 for _ in sieves]
    given = Sieves.of(sieves, ones, ones, streams)
    spans = [
        l1_sums([tensor.stored(source, start, stop) for source in range(tensor.sources)], start, given)
        for start, stop in chunks(tensor.size, _SPAN)
    ]
    found = []
    for parts in np.stack(spans, axis=1):
        whole, kept = map(math.fsum, parts.T)
        found.append(whole / kept if kept > 0.0 else 1.0)
    return found
