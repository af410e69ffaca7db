"""Weighted sums of stored numbers, converted and rounded on the way; several sums in one pass over their sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy import uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.lanes import (
    CODES,
    WIDTH,
    added,
    load,
    load_floats,
    scaled,
    store,
    store_floats,
)
from evomerge.merge.kernels.memory import Addresses, Codes, Stored, address, aligned
from evomerge.merge.tensorfile import Array

Floats = NDArray[np.float32]

_STEP = 2 * WIDTH
"""Numbers of each source that several sums share at a time: few, so that many streams of memory are under way."""
_LINE = 64
"""Bytes of a cache line: what is written past the caches begins with one."""
_NEXT, _ROW = uint64(4 * WIDTH), uint64(4 * _STEP)


def weighted_sums(
    sources: Sequence[tuple[Array, str]],
    weights: NDArray[np.float64],
    outs: Sequence[Array],
    dtype: str,
    past: bool = False,
) -> None:
    """``outs[r] = sum_k weights[r, k] sources[k]`` in float32, left to right, rounded to a safetensors ``dtype``.

    Sources are flat arrays as `STORED` holds them, with their dtypes. Weights, R x K, are rounded to float32; what is
    zero then is no term of a sum, and a lone term of weight 1 and the same dtype is copied bit for bit. Each sum is
    what it would be alone. ``past`` the caches: for results that are much larger than those.
    """
    with np.errstate(over="ignore"):
        rounded = weights.astype(np.float32)
    rows = [row for row in range(len(outs)) if not _simple(sources, rounded[row], outs[row], dtype)]
    if not rows:
        return
    used: list[int] = np.flatnonzero(rounded[rows].any(axis=0)).tolist()
    stored = Stored.of([sources[k] for k in used])
    factors = np.ascontiguousarray(rounded[rows][:, used])
    places = [outs[row] for row in rows]
    count = places[0].size
    first = _until_lines(places) if past else 0
    last = first + (count - first) // _STEP * _STEP
    _call(stored.part(first, last), factors, [place[first:last] for place in places], CODES[dtype], past)
    if last - first < count:  # both ends together, filled up to whole vectors
        zeros = -(first + count - last) % _STEP
        padded = [np.concatenate([a[:first], a[last:], np.zeros(zeros, a.dtype)]) for a in stored.arrays]
        ends = [np.empty(padded[0].size, place.dtype) for place in places]
        _call(Stored(padded, stored.codes), factors, ends, CODES[dtype], past=False)
        for place, end in zip(places, ends, strict=True):
            place[:first], place[last:] = end[:first], end[first : first + count - last]


def _until_lines(places: Sequence[Array]) -> int:
    """Elements after which all these arrays are at the start of a cache line; none if they never are together."""
    starts = {address(place) % _LINE for place in places}
    elements, odd = divmod(-min(starts) % _LINE, places[0].itemsize)
    return 0 if len(starts) > 1 or odd or elements > places[0].size else elements


def _call(stored: Stored, weights: Floats, outs: Sequence[Array], code: int, past: bool) -> None:
    """Whole vectors."""
    places = np.array([address(out) for out in outs], dtype=np.uint64)
    past = bool(past and not (places % _LINE).any())
    addresses, codes, sizes = stored.addresses, stored.codes, stored.sizes
    size, count = outs[0].itemsize, outs[0].size
    if len(outs) == 1:
        _sum(addresses, codes, sizes, weights[0], places, code, size, count, past)
        return
    near = aligned(len(stored.arrays) * _STEP, 4)
    order = np.argsort(weights == 0.0, axis=1, kind="stable")
    terms = (address(near) + order * 4 * _STEP).astype(np.uint64)
    factors = np.take_along_axis(weights, order, axis=1)
    counts = np.count_nonzero(weights, axis=1)
    _sums(addresses, codes, sizes, address(near), terms, factors, counts, places, code, size, count, past)


def _simple(sources: Sequence[tuple[Array, str]], weights: Floats, out: Array, dtype: str) -> bool:
    """Whether there was nothing to add: no term, or a lone one to copy."""
    used = np.flatnonzero(weights)
    if not len(used):
        out.fill(0)
    elif len(used) == 1 and weights[used[0]] == 1.0 and sources[used[0]][1] == dtype:
        np.copyto(out, sources[used[0]][0])
    else:
        return False
    return True


@njit(nogil=True, cache=True)
def _sum(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    weights: Floats,
    outs: Addresses,
    code: int,
    size: int,
    count: int,
    past: bool,
) -> None:
    """A single sum never leaves the registers."""
    for start in range(0, count, WIDTH):
        at = uint64(start)
        total = scaled(load(codes[0], sources[0] + at * sizes[0]), weights[0])
        for k in range(1, sources.size):
            total = added(total, scaled(load(codes[k], sources[k] + at * sizes[k]), weights[k]))
        store(code, total, outs[0] + at * uint64(size), past)


@njit(nogil=True, cache=True)
def _sums(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    scratch: int,
    terms: Addresses,
    factors: Floats,
    counts: Codes,
    outs: Addresses,
    code: int,
    size: int,
    count: int,
    past: bool,
) -> None:
    """Each source is converted once, into ``scratch``; the sums add what is in the nearest cache.

    Sum ``r`` has ``counts[r]`` terms: what is converted to ``terms[r]``, times ``factors[r]``.
    """
    near = uint64(scratch)
    for start in range(0, count, _STEP):
        at = uint64(start)
        for k in range(sources.size):
            place, source = near + uint64(k) * _ROW, sources[k] + at * sizes[k]
            store_floats(load(codes[k], source), place)
            store_floats(load(codes[k], source + uint64(WIDTH) * sizes[k]), place + _NEXT)
        for row in range(outs.size):
            place, factor = terms[row, 0], factors[row, 0]
            one, two = scaled(load_floats(place), factor), scaled(load_floats(place + _NEXT), factor)
            for term in range(1, counts[row]):
                place, factor = terms[row, term], factors[row, term]
                one = added(one, scaled(load_floats(place), factor))
                two = added(two, scaled(load_floats(place + _NEXT), factor))
            out = outs[row] + at * uint64(size)
            store(code, one, out, past)
            store(code, two, out + uint64(WIDTH) * uint64(size), past)
