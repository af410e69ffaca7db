"""Model Breadcrumbs: neither the largest nor the smallest differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from evomerge.merge.operators.delta import LAMBDA, WEIGHT, Electing, Rescaled, Sieve
from evomerge.merge.operators.port import Parameter, Tensor, Values
from evomerge.merge.operators.statistics import Magnitudes


@dataclass(frozen=True)
class Breadcrumbs(Rescaled):
    """``theta_0 + lambda sum_i w_i s_i``, ``s_i`` what is left of ``tau_i`` without its extremes.

    Model Breadcrumbs (Davari & Belilovsky 2024). Per tensor the share ``gamma`` of largest magnitude is dropped (less
    where ``1 - density`` leaves less room), and of the rest all but the largest: the share ``density`` survives, at
    least one entry, and all that equal the largest or smallest survivor. With ``rescale = "l1"`` survivors are
    enlarged, per tensor, to ``||tau_i||_1``.

    mergekit's breadcrumbs is this; it rounds both counts down, and keeps only some of equal entries. Its version 0.1.4
    lost tensors of fewer than ``1 / gamma`` entries.

    Values: one weight, density and gamma per expert, and lambda.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        replace(WEIGHT, default=0.5),
        Parameter("density", 0.05, 1.0, 0.9, "expert", limits=(0.0, 1.0), above=True),
        Parameter("gamma", 0.0, 0.05, 0.01, "expert", limits=(0.0, 1.0)),
        LAMBDA,
    )

    def sieve(self, tensor: Tensor, source: int, values: Values) -> Sieve:
        """By magnitude, from both ends."""
        kept = max(1, round(values.each("density")[source - 1] * tensor.size))
        dropped = min(round(values.each("gamma")[source - 1] * tensor.size), tensor.size - kept)
        if dropped <= 0 and kept >= tensor.size:
            return Sieve()
        found = Magnitudes((tensor,), source)
        high = found.nth_largest(dropped + 1) if dropped else math.inf
        return Sieve(found.nth_largest(kept + dropped), high)


@dataclass(frozen=True)
class BreadcrumbsTies(Electing, Breadcrumbs):
    """`Breadcrumbs`, but only survivors of the elected sign count (mergekit's breadcrumbs_ties).

    The sign of an entry is that of ``sum_i w_i s_i``, or that of most survivors (``elect``); plus where that is zero.
    Of what has that sign, the ``sum``, the ``mean`` weighted by w (mergekit's ``normalize``) or the ``max``
    (``aggregate``).

    Values: one weight, density and gamma per expert, and lambda.
    """
