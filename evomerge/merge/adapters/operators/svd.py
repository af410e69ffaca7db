"""Weighted sums of adapters, compressed to a smaller rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.merge.adapters.factors import Doubles, Factors, rounded
from evomerge.merge.adapters.operators.sums import WEIGHT
from evomerge.merge.adapters.port import FactorOperator, Module, present
from evomerge.merge.operators.port import Arrays, Parameter, Values

_ZERO = 1e-12
"""A singular value that is so much smaller than the largest is rounding."""


@dataclass(frozen=True)
class LoraSVD(FactorOperator):
    """The best approximation of ``sum_i w_i s_i B_i A_i`` of a rank (Eckart-Young), as ``(U sqrt(S)) (sqrt(S) V')``.

    It keeps the fewest singular values whose squares make up the share ``energy`` of all, and at most ``rank`` of them.
    From ``[B_1 ..] = Q_B R_B`` and ``[A_1; ..]' = Q_A R_A`` only the small ``R_B diag(w s) R_A'`` is decomposed, never
    an out x in matrix (PEFT's ``svd``). Values: one weight per adapter, then ``rank`` and ``energy``.
    """

    parameters: ClassVar = (
        WEIGHT,
        Parameter("rank", 1.0, 64.0, 16.0, kind="integer", limits=(0.0, math.inf)),
        Parameter("energy", 0.5, 1.0, 1.0, limits=(0.0, 1.0), above=True),
    )

    def merge(self, module: Module, values: Values) -> Factors | None:
        """The small decomposition, between the cached outer ones."""
        terms = present(module, "weight", values)
        outer = module.remember("lora_svd: Q and R", lambda: _outer([one for _, one in terms]))
        return _inner(outer, terms, round(values.one("rank")), values.one("energy"))


def compressed(terms: Sequence[tuple[float, Factors]], rank: int) -> Factors | None:
    """The best approximation of ``sum_i c_i s_i B_i A_i`` of a rank; ``None`` if there is nothing to approximate."""
    return _inner(_outer([one for _, one in terms]), terms, rank) if terms else None


def _inner(outer: Arrays, terms: Sequence[tuple[float, Factors]], rank: int, energy: float = 1.0) -> Factors | None:
    """Between the outer Q and R."""
    each = np.concatenate([np.full(one.rank, weight * one.scale) for weight, one in terms])
    u, s, vt = np.linalg.svd(outer["RB"] * each @ outer["RA"].T)
    kept = count(s, rank, energy)
    return balanced(outer["QB"] @ u[:, :kept], s[:kept], vt[:kept] @ outer["QA"].T) if kept else None


def _outer(adapters: list[Factors]) -> Arrays:
    qb, rb = np.linalg.qr(np.concatenate([one.B.astype(np.float64) for one in adapters], axis=1))
    qa, ra = np.linalg.qr(np.concatenate([one.A.astype(np.float64) for one in adapters]).T)
    return {"QB": qb, "RB": rb, "QA": qa, "RA": ra}


def count(s: Doubles, rank: int, energy: float = 1.0) -> int:
    """How many singular values, largest first, make up the share ``energy`` of all their squares; at most ``rank``."""
    if not len(s) or not s[0] > 0.0:
        return 0
    sums = np.cumsum((s / s[0]) ** 2)
    wanted = int(np.searchsorted(sums, energy * sums[-1])) + 1
    return min(wanted, rank, int((s > _ZERO * s[0]).sum()))


def balanced(u: Doubles, s: Doubles, vt: Doubles) -> Factors:
    """``u diag(s) vt``, the roots of ``s`` on both sides and the largest entry of each column of ``u`` positive."""
    largest = u[np.abs(u).argmax(axis=0), np.arange(len(s))]
    roots = np.sqrt(s)
    signs = np.where(largest < 0.0, -roots, roots)
    return rounded(u * signs, signs[:, None] * vt)
