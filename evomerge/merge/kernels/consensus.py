"""Consensus merging in one pass over float32 sources: the bytes of the operators' own text, without its many arrays."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import float32
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STEP = 2048


@njit(nogil=True, cache=True)
def consensus(
    theta: Floats, thresholds: Floats, elect: bool, lambdas: Floats, k: np.float32, alpha: np.float32, out: Floats
) -> None:
    """``theta_0 + alpha [sum_t m_t >= k] tau``; ``theta`` is (1 + N, n), the base first.

    With ``elect``, tau is that of TIES, from the task vectors trimmed at ``thresholds``; else it is their sum.
    """
    taus = np.empty((len(lambdas), _STEP), np.float32)
    together = np.empty(_STEP, np.float32)
    other = np.empty(_STEP, np.float32)
    for start in range(0, out.size, _STEP):
        base, merged = theta[0, start : start + _STEP], out[start : start + _STEP]
        count = base.size
        for t in range(len(lambdas)):
            expert = theta[t + 1, start : start + count]
            for e in range(count):
                taus[t, e] = expert[e] - base[e]
        if elect:
            _elected(taus, thresholds, count, together, other)
        else:
            together[:] = taus[0]
            for t in range(1, len(lambdas)):
                for e in range(count):
                    together[e] += taus[t, e]
        claims = other
        claims[:] = float32(0)
        for t in range(len(lambdas)):
            claim = lambdas[t]
            for e in range(count):
                claims[e] += float32(1) if abs(taus[t, e]) >= claim * abs(together[e] - taus[t, e]) else float32(0)
        for e in range(count):
            kept = together[e] if claims[e] >= k else float32(0)
            merged[e] = base[e] + alpha * kept


@njit(nogil=True)
def _elected(taus: Floats, thresholds: Floats, count: int, positive: Floats, negative: Floats) -> None:
    """Leaves in ``positive`` the sum of the trimmed entries that have the sign of the sum of all."""
    positive[:] = float32(0)
    negative[:] = float32(0)
    for t in range(len(taus)):
        threshold = thresholds[t]
        for e in range(count):
            trimmed = taus[t, e] if abs(taus[t, e]) >= threshold else float32(0)
            positive[e] += trimmed if trimmed > float32(0) else float32(0)
            negative[e] += trimmed if trimmed < float32(0) else float32(0)
    for e in range(count):
        positive[e] = positive[e] if positive[e] + negative[e] >= float32(0) else negative[e]


@njit(nogil=True, cache=True)
def signs(theta: Floats, thresholds: Floats, sizes: Floats, out: Floats) -> None:
    """``theta_0 + sum_i size_i sgn(tau_i)`` where ``|tau_i|`` reaches its threshold."""
    for start in range(0, out.size, _STEP):
        base, merged = theta[0, start : start + _STEP], out[start : start + _STEP]
        merged[:] = base
        for t in range(len(sizes)):
            expert, threshold, size = theta[t + 1, start : start + _STEP], thresholds[t], sizes[t]
            for e in range(base.size):
                tau = expert[e] - base[e]
                sign = float32(1) if tau > float32(0) else (float32(-1) if tau < float32(0) else float32(0))
                merged[e] += size * (sign if abs(tau) >= threshold else float32(0))
