"""Competition for items and attraction between members: the arithmetic of M2N2 (arXiv 2508.16204, Eq. 3 to 5).

Rows are members, columns are items; S_kj >= 0 is what member k scores on item j. Sums never go through BLAS, so they
do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.generic]

NOBODY = 1e-12
"""An item on which all scores together are less pays (next to) nothing, instead of dividing by next to nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How an item pays: ``alpha``, ``capacity`` and ``subtract_minimum`` as in `M2N2Settings`."""

    alpha: float
    capacity: Literal["best", "one"]
    subtract_minimum: bool


class Competition:
    """Who is paid what in one archive.

    Args:
        rows: (P, N) non-negative scores as float64; rows of empty slots are zero. Kept, and changed when ``rules`` say
            so: hand over a copy where it matters.
        rules: how items pay.
        binary: whether all scores are 0 or 1.
        filled: which slots are occupied; default: all.
    """

    def __init__(self, rows: Floats, rules: Rules, *, binary: bool, filled: NDArray[np.bool_] | None = None) -> None:
        if rules.subtract_minimum:
            who = slice(None) if filled is None else filled
            rows[who] -= rows[who].min(axis=0)
        crowd = rows.sum(axis=0)  # z_j
        crowd[crowd < NOBODY] = 1.0
        weights = np.asarray(1.0 / crowd if rules.alpha == 1.0 else crowd**-rules.alpha)
        if rules.capacity == "best" and not binary:  # for right/wrong it is 1 wherever anybody is paid
            weights *= rows.max(axis=0)  # Eq. 5
        self._rows, self._binary = rows, binary
        self._weights = weights  # c_j / z_j^alpha, Eq. 3
        self.payout = _sums(rows, weights)
        """f_k, what each member is paid over all items: (P,)."""

    @classmethod
    def of(cls, scores: Scores, rules: Rules) -> Competition:
        """The competition among the rows of raw scores, bool for right/wrong; all of them are members."""
        return cls(scores.astype(np.float64), rules, binary=scores.dtype == np.bool_)

    def attraction(self, first: int) -> Floats:
        """G(A, B) = sum_j max(F_Bj - F_Aj, 0) for every B (Eq. 4): (P,)."""
        mine = self._rows[first]
        if self._binary:  # max(S_B - S_A, 0) is S_B where A fails: one pass instead of three
            return _sums(self._rows, self._weights * (1.0 - mine))
        return _sums(np.maximum(self._rows - mine, 0.0), self._weights)


def _sums(rows: Floats, weights: Floats) -> Floats:
    return np.asarray(np.einsum("kj,j->k", rows, weights))


def least(payouts: Floats) -> int:
    """The lowest index among the least. Payouts that differ by rounding only are equal: items often pay in thirds."""
    return int(np.argmax(payouts <= payouts.min() * (1.0 + 1e-9)))


def pick(weights: Floats, uniform: float) -> int:
    """Roulette: the first index whose cumulative weight reaches total * (1 - u), u in [0, 1)."""
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, cumulative[-1] * (1.0 - uniform)))


def without(weights: Floats, index: int) -> Floats:
    """The weights with one of them zero."""
    rest = weights.copy()
    rest[index] = 0.0
    return rest


def coverage(rows: Floats) -> float:
    """Mean over items of the best score any row has: for right/wrong, the share of items that somebody solves."""
    return float(rows.max(axis=0).mean())


def entropy(rows: Floats) -> float:
    """Mean over items of the binary entropy of the share of rows that solve it, in bits (paper Fig. 3, 5)."""
    share = np.clip(rows.mean(axis=0), 0.0, 1.0)
    inner = share[(share > 0) & (share < 1)]
    return float(-(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)).sum() / share.size)
