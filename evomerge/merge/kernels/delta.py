"""The delta pipeline in one pass: sources are converted, sieved, elected from and added up without leaving a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy import float32, uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.choices import (
    divided,
    magnitudes,
    spread,
    subtracted,
    where_above,
    where_set,
    within,
)
from evomerge.merge.kernels.lanes import (
    WIDTH,
    Address,
    Vector,
    added,
    load,
    load_doubles,
    scaled,
    store_doubles,
    store_floats,
    widened,
)
from evomerge.merge.kernels.memory import Addresses, Codes, Stored, address
from evomerge.merge.kernels.philox import BLOCK, LANES, PLANES, below
from evomerge.merge.tensorfile import Array

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]
Numbers = NDArray[np.int64]
Words = NDArray[np.uint32]
Masks = NDArray[np.uint64]

ELECTIONS = {None: 0, "sum": 1, "count": 2}
RESULTS = {"sum": 0, "mean": 1, "max": 2, "sign": 3}
_NONE, _BY_SUM, _BY_COUNT = ELECTIONS.values()
_SUM, _MEAN, _MAX, _SIGN = RESULTS.values()

_ALL = 1 << 16
"""The limit under which all random bits are: none are drawn."""
_MASK = 2 * BLOCK // 64 + 1
"""Words that say which elements of a block survive, wherever it begins, and one to read past them."""
_ZERO, _ONE = float32(0.0), float32(1.0)
_LEAST = float32(2.0**-149)
"""The smallest number above 0."""


Sieves = tuple[Floats, Numbers, Words]
"""Of N experts: (N, 4) least and largest magnitude, coefficient and share; (N,) limits; (N, 4) streams of bits."""


def blend(
    sources: Sequence[tuple[Array, str]], start: int, sieves: Sieves, rules: tuple[int, int, bool], scale: float
) -> Floats:
    """`evomerge.merge.operators.delta.blended` of flat arrays as `STORED` holds them, with their dtypes; float32 (m,).

    ``start`` is their first element's index in the tensor, ``rules`` are election, result and whether up wins.
    """
    numbers, limits, streams = sieves
    count = sources[0][0].size
    out = np.empty(count + -count % WIDTH, dtype=np.float32)
    masks = np.empty((len(limits), _MASK), dtype=np.uint64)
    rule = np.array(rules)
    for first, stored in Stored.of(sources).in_vectors():
        _blend(
            stored.addresses,
            stored.codes,
            stored.sizes,
            numbers,
            limits,
            streams,
            rule,
            np.float32(scale),
            start + first,
            stored.arrays[0].size,
            address(out[first:]),
            masks,
            np.empty((PLANES, 4, LANES), dtype=np.uint32),
        )
    return out[:count]


def l1_sums(sources: Sequence[tuple[Array, str]], start: int, sieves: Sieves) -> Sums:
    """Sums of magnitudes, of each delta and of what survives of it: (N, 2)."""
    numbers, limits, streams = sieves
    masks = np.empty((1, _MASK), dtype=np.uint64)
    lanes = np.zeros((len(limits), 2, WIDTH))
    for first, stored in Stored.of(sources).in_vectors():
        _l1(
            stored.addresses,
            stored.codes,
            stored.sizes,
            numbers,
            limits,
            streams,
            start + first,
            stored.arrays[0].size,
            lanes,
            address(lanes),
            masks,
            np.empty((PLANES, 4, LANES), dtype=np.uint32),
        )
    sums: Sums = np.add.reduce(lanes, axis=-1)
    return sums


@njit(nogil=True, cache=True)
def _blend(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    numbers: Floats,
    limits: Numbers,
    streams: Words,
    rules: Numbers,
    scale: Any,
    start: int,
    count: int,
    out: Address,
    masks: Masks,
    planes: Words,
) -> None:
    """``masks`` are (N, _MASK); ``planes`` is for `below`."""
    elect, result, up_wins = rules
    none, one = spread(_ZERO), spread(_ONE)
    for first in range(0, count, BLOCK):
        stop = min(first + BLOCK, count)
        for j in range(limits.size):
            if limits[j] < _ALL:
                _draw(start + first, start + stop, streams[j], limits[j], masks[j], planes)
        skipped = (start + first) % BLOCK - first
        for at in range(first, stop, WIDTH):
            base = load(codes[0], sources[0] + uint64(at) * sizes[0])
            up, down, for_up, for_down, votes = none, none, none, none, none
            for j in range(limits.size):
                low, high, coefficient, share = numbers[j]
                tau = subtracted(load(codes[j + 1], sources[j + 1] + uint64(at) * sizes[j + 1]), base)
                say = within(low, high, magnitudes(tau), scaled(tau, coefficient))
                if limits[j] < _ALL:
                    say = where_set(_bits(masks[j], skipped + at), say)
                up = added(up, where_above(say, none, say, none))
                down = added(down, where_above(none, say, say, none))
                if elect == _BY_COUNT:
                    votes = added(votes, where_above(say, none, one, none))
                    votes = subtracted(votes, where_above(none, say, one, none))
                if result == _MEAN:
                    for_up = added(for_up, where_above(say, none, spread(share), none))
                    for_down = added(for_down, where_above(none, say, spread(share), none))
                elif result == _MAX:
                    for_up = where_above(say, for_up, say, for_up)
                    for_down = where_above(for_down, say, say, for_down)
            delta = added(up, down)
            if elect != _NONE:
                votes = delta if elect == _BY_SUM else votes
                delta = _elected(result, up_wins, votes, up, down, for_up, for_down)
            if result != _SIGN:
                delta = added(base, scaled(delta, scale))
            store_floats(delta, uint64(out) + uint64(4 * at))


@njit(nogil=True)
def _elected(
    result: int, up_wins: int, votes: Vector, up: Vector, down: Vector, for_up: Vector, for_down: Vector
) -> Vector:
    """Of the camp that wins its sum, its mean by weights or its largest; or the sign of the votes."""
    none, one = spread(_ZERO), spread(_ONE)
    if result == _SIGN:
        return where_above(votes, none, one, where_above(none, votes, spread(-_ONE), none))
    least = spread(-_LEAST if up_wins else _ZERO)  # votes >= 0, or > 0
    if result == _MAX:
        return where_above(votes, least, for_up, for_down)
    delta = where_above(votes, least, up, down)
    if result == _MEAN:
        weight = where_above(votes, least, for_up, for_down)
        return divided(delta, where_above(weight, none, weight, one))
    return delta


@njit(nogil=True, cache=True)
def _l1(
    sources: Addresses,
    codes: Codes,
    sizes: Addresses,
    numbers: Floats,
    limits: Numbers,
    streams: Words,
    start: int,
    count: int,
    lanes: Sums,
    sums: Address,
    masks: Masks,
    planes: Words,
) -> None:
    """Adds to ``lanes``, (N, 2, WIDTH), whose address is ``sums``: in float32 over a block's few vectors only."""
    none = spread(_ZERO)
    for first in range(0, count, BLOCK):
        stop = min(first + BLOCK, count)
        skipped = (start + first) % BLOCK - first
        for j in range(limits.size):
            if limits[j] < _ALL:
                _draw(start + first, start + stop, streams[j], limits[j], masks[0], planes)
            whole, kept = none, none
            for at in range(first, stop, WIDTH):
                base = load(codes[0], sources[0] + uint64(at) * sizes[0])
                size = magnitudes(subtracted(load(codes[j + 1], sources[j + 1] + uint64(at) * sizes[j + 1]), base))
                survivors = within(numbers[j, 0], numbers[j, 1], size, size)
                if limits[j] < _ALL:
                    survivors = where_set(_bits(masks[0], skipped + at), survivors)
                whole, kept = added(whole, size), added(kept, survivors)
            place = uint64(sums) + uint64(8 * WIDTH * 2 * j)
            store_doubles(added(load_doubles(place), widened(whole)), place)
            place += uint64(8 * WIDTH)
            store_doubles(added(load_doubles(place), widened(kept)), place)


@njit(nogil=True)
def _draw(start: int, stop: int, stream: Words, limit: int, mask: Masks, planes: Words) -> None:
    """Which elements of ``start:stop``, and of the rest of the one or two blocks they lie in, survive: as bits."""
    first = start // BLOCK
    blocks = (stop - 1) // BLOCK - first + 1
    if limit > 0:
        below(uint64(mask.ctypes.data), blocks, first, stream, limit, planes)
    else:
        mask[:] = uint64(0)


@njit(nogil=True)
def _bits(mask: Masks, at: int) -> Any:
    """Sixty-four bits of a mask from the one numbered ``at`` on."""
    word, shift = at // 64, uint64(at % 64)
    if shift == 0:
        return mask[word]
    return uint64((mask[word] >> shift) | (mask[word + 1] << (uint64(64) - shift)))
