"""How much each expert's entries compete for a place: the scores of PCB-Merging, and what follows from them.

Exponentials and hyperbolic tangents are written out, so that they are the same on every machine, and vector code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy import float32, uint32
from numpy.typing import NDArray

from evomerge.merge.kernels.patterns import pattern_of, value_of

Floats = NDArray[np.float32]
Number = Any
"""A float32 scalar."""

_STEP = 2048
"""Entries at a time. Rows are cut with slices: of an index that is a sum, numba would test whether it is negative."""
_ROUND = float32(1.5 * 2**23)
"""Added to a number between +-2^22 it leaves, in the last bits, the nearest whole one."""


@njit(nogil=True, error_model="numpy")
def _exp(x: Number) -> Number:
    """``e^x`` for ``-87 < x <= 0`` to 3 units in the last place: ``2^k e^f`` with ``|f| <= ln 2 / 2``."""
    shifted = x * float32(1.4426950408889634) + _ROUND
    k = shifted - _ROUND
    f = (x - k * float32(0.693359375)) - k * float32(-2.12194440e-4)  # ln 2 in two parts, the first one exact
    rest = float32(1 / 6) + f * (float32(1 / 24) + f * (float32(1 / 120) + f * float32(1 / 720)))
    return (float32(1) + f * (float32(1) + f * (float32(0.5) + f * rest))) * value_of(
        uint32(uint32(pattern_of(shifted) << uint32(23)) + uint32(0x3F800000))
    )


@njit(nogil=True, error_model="numpy")
def _tanh(x: Number) -> Number:
    """``tanh x`` for ``|x| <= 1``: its continued fraction, cut off where it is exact to float32."""
    s = x * x
    above = x * (float32(10395) + s * (float32(1260) + s * float32(21)))
    return above / (float32(10395) + s * (float32(4725) + s * (float32(210) + s)))


@njit(nogil=True, error_model="numpy")
def _signed_share(delta: Number, low: Number, high: Number, inverse: Number) -> Number:
    """``z = sgn(tau) (clip(|tau|, low, high) - low) / (high - low)``."""
    share = (min(max(abs(delta), low), high) - low) * inverse
    return share if delta > float32(0) else (-share if delta < float32(0) else float32(0))


@njit(nogil=True, error_model="numpy", cache=True)
def find_scores(theta: Floats, lows: Floats, highs: Floats, inverses: Floats, variant: int, scores: Floats) -> None:
    """Of each of N experts ``exp(N (z_i^2 - 1)) inter_i``; ``theta`` is (1 + N, n), the base first, ``scores`` (N, n).

    The factor ``exp(-N)`` changes nothing that is done with scores, and keeps them small.
    """
    experts, size = scores.shape
    taus = np.empty((experts, _STEP), float32)
    z = np.empty((experts, _STEP), float32)
    inter = np.empty((experts, _STEP), float32)
    for start in range(0, size, _STEP):
        count = min(_STEP, size - start)
        base = theta[0, start : start + count]
        for i in range(experts):
            expert = theta[i + 1, start : start + count]
            low, high, inverse = lows[i], highs[i], inverses[i]
            for e in range(count):
                taus[i, e] = expert[e] - base[e]
                z[i, e] = _signed_share(taus[i, e], low, high, inverse)
        if variant == 0:
            _agree(z, count, inter)
        else:
            _agree_with_sum(taus, z if variant == 1 else taus, count, inter)
        for i in range(experts):
            row = scores[i, start : start + count]
            for e in range(count):
                row[e] = inter[i, e] * _exp((z[i, e] * z[i, e] - float32(1)) * float32(experts))


@njit(nogil=True, error_model="numpy")
def _agree(z: Floats, count: int, inter: Floats) -> None:
    """Variant C: ``sum_j tanh(z_i z_j)``, j = i included."""
    for i in range(len(z)):
        for e in range(count):
            inter[i, e] = _tanh(z[i, e] * z[i, e])
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            for e in range(count):
                both = _tanh(z[i, e] * z[j, e])
                inter[i, e] += both
                inter[j, e] += both


@njit(nogil=True, error_model="numpy")
def _agree_with_sum(taus: Floats, others: Floats, count: int, inter: Floats) -> None:
    """Variants B and A: ``tanh(tau_i sum_j z_j)`` and ``tanh(tau_i sum_j tau_j)``."""
    for e in range(count):
        total = float32(0)
        for j in range(len(taus)):
            total += others[j, e]
        for i in range(len(taus)):
            inter[i, e] = math.tanh(taus[i, e] * total)


@njit(nogil=True, cache=True)
def count(scores: Floats, counts: NDArray[np.int64]) -> None:
    """Add (n,) scores to ``counts`` (65,536) by the upper halves of their orders."""
    for e in range(scores.size):
        counts[_order(scores[e]) >> uint32(16)] += 1


@njit(nogil=True, cache=True)
def count_within(scores: Floats, upper: int, counts: NDArray[np.int64]) -> None:
    """Of those whose order has this upper half, add the lower halves to ``counts``."""
    for e in range(scores.size):
        order = _order(scores[e])
        if order >> uint32(16) == uint32(upper):
            counts[order & uint32(0xFFFF)] += 1


@njit(nogil=True)
def _order(value: Number) -> Number:
    """A whole number that grows with the value: its pattern, turned round below zero."""
    bits = pattern_of(value)
    return uint32(~bits) if bits >> uint32(31) else uint32(bits | uint32(0x80000000))


def score_of(order: int) -> np.float32:
    """The score of that order."""
    bits = order & 0x7FFFFFFF if order >> 31 else ~order & 0xFFFFFFFF
    return np.uint32(bits).view(np.float32)


@njit(nogil=True, error_model="numpy", cache=True)
def weigh(
    theta: Floats, lows: Floats, highs: Floats, least: Floats, slopes: Floats, ends: Floats, scores: Floats
) -> None:
    """Turn ``scores`` (N, n) into ``tau_i S_i / sum_j S_j``, the magnitudes of tau clipped to ``lows`` and ``highs``.

    S is 0 below ``least``, and from there on ``ends + (score - least) slopes``.
    """
    experts, size = scores.shape
    totals = np.empty(_STEP, float32)
    for start in range(0, size, _STEP):
        count = min(_STEP, size - start)
        totals[:count] = float32(0)
        for i in range(experts):
            first, slope, end = least[i], slopes[i], ends[i]
            row = scores[i, start : start + count]
            for e in range(count):
                share = end + (row[e] - first) * slope
                row[e] = share if row[e] >= first else float32(0)
                totals[e] += row[e]
        base = theta[0, start : start + count]
        for i in range(experts):
            low, high = lows[i], highs[i]
            expert, row = theta[i + 1, start : start + count], scores[i, start : start + count]
            for e in range(count):
                delta = expert[e] - base[e]
                clipped = min(max(abs(delta), low), high)
                signed = clipped if delta > float32(0) else (-clipped if delta < float32(0) else float32(0))
                row[e] *= signed / max(totals[e], float32(1e-12))
