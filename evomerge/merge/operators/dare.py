"""DARE: drop at random, and rescale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from evomerge.merge.operators.delta import ALL, DENSITY, LAMBDA, WEIGHT, Electing, RandomDelta, Sieve
from evomerge.merge.operators.port import Parameter, Tensor, Values


@dataclass(frozen=True)
class DareLinear(RandomDelta):
    """``theta_0 + lambda sum_i w_i s_i``, ``s_i`` a random share of ``tau_i``, rescaled (DARE, Yu et al. 2024).

    Each entry survives with probability ``density`` (to a multiple of 1/65536) and is divided by it (``rescale =
    "exact"``), so that the expectation is ``tau_i``; or all survivors are enlarged, per tensor, to ``||tau_i||_1``
    (``"l1"``, mergekit's dare_linear); or neither (``"none"``, mergekit's with ``rescale: false``). The masks depend on
    the ``seed`` and the names of source and tensor alone: mergekit's, on everything drawn before.

    Values: one weight and one density per expert, and lambda.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (replace(WEIGHT, default=0.5), DENSITY, LAMBDA)

    def sieve(self, tensor: Tensor, source: int, values: Values) -> Sieve:
        """At random."""
        return Sieve(limit=max(1, round(values.each("density")[source - 1] * ALL)))


@dataclass(frozen=True)
class DareTies(Electing, DareLinear):
    """`DareLinear`, but only survivors of the elected sign count (DARE with TIES, Yu et al. 2024).

    The sign of an entry is that of ``sum_i w_i s_i``, or that of most survivors (``elect``); plus where that is zero.
    Of what has that sign, the ``sum``, the ``mean`` weighted by w or the ``max`` (``aggregate``). mergekit's dare_ties
    is ``rescale = "l1"``, and with its ``normalize`` ``aggregate = "mean"``.

    Values: one weight and one density per expert, and lambda.
    """
