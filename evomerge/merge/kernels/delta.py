"""The delta pipeline in one pass: sources are converted, sieved, elected from and added up without leaving a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numpy import float32, uint64
from numpy.typing import NDArray

from evomerge.merge.kernels.lanes import (
    CODES,
    WIDTH,
    Address,
    VectorType,
    added,
    floats,
    instruction,
    load,
    scaled,
    store_floats,
)
from evomerge.merge.tensorfile import Array

Addresses = NDArray[np.uint64]
Floats = NDArray[np.float32]
Numbers = NDArray[Any]

ELECTIONS = {None: 0, "sum": 1, "count": 2}
RESULTS = {"sum": 0, "mean": 1, "max": 2, "sign": 3}
_NONE, _BY_SUM, _BY_COUNT = ELECTIONS.values()
_SUM, _MEAN, _MAX, _SIGN = RESULTS.values()

_ZERO, _ONE = float32(0.0), float32(1.0)
_LEAST = float32(2.0**-149)
"""The smallest number above 0."""
_words = VectorType(ir.IntType(32)).ir
_halves = VectorType(ir.IntType(16)).ir


def _spread(do: Any, scalar: Any, kind: Any) -> Any:
    """A number in every lane."""
    one = do.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return do.shuffle_vector(one, one, ir.Constant(_words, [0] * WIDTH))


def _none() -> Any:
    return ir.Constant(floats.ir, [0.0] * WIDTH)


def _size(do: Any, vector: Any) -> Any:
    """Magnitudes: the sign bit cleared."""
    bits = do.and_(do.bitcast(vector, _words), ir.Constant(_words, [0x7FFFFFFF] * WIDTH))
    return do.bitcast(bits, floats.ir)


@instruction
def spread(context: Any, number: Any) -> Any:
    """A float32 in every lane."""
    return floats(types.float32), lambda _, do, __, given: _spread(do, given[0], floats.ir)


@instruction
def subtracted(context: Any, one: Any, two: Any) -> Any:
    """Differences, lane by lane."""
    return floats(floats, floats), lambda _, do, __, given: do.fsub(*given)


@instruction
def divided(context: Any, one: Any, two: Any) -> Any:
    """Quotients, lane by lane."""
    return floats(floats, floats), lambda _, do, __, given: do.fdiv(*given)


@instruction
def within(context: Any, low: Any, high: Any, tau: Any, value: Any) -> Any:
    """``value`` where ``low <= |tau| <= high``, and else 0."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        low, high, tau, value = given
        size = _size(do, tau)
        above = do.fcmp_ordered(">=", size, _spread(do, low, floats.ir))
        below = do.fcmp_ordered("<=", size, _spread(do, high, floats.ir))
        return do.select(do.and_(above, below), value, _none())

    return floats(types.float32, types.float32, floats, floats), generate


@instruction
def drawn(context: Any, address: Any, limit: Any, value: Any) -> Any:
    """``value`` where the uint16 numbers from an address on are below ``limit``, and else 0."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        address, limit, value = given
        bits = do.load(do.inttoptr(address, _halves.as_pointer()), align=2)
        kept = do.icmp_unsigned("<", bits, _spread(do, limit, _halves))
        return do.select(kept, value, _none())

    return floats(types.uint64, types.uint16, floats), generate


@instruction
def where_above(context: Any, value: Any, limit: Any, one: Any, two: Any) -> Any:
    """``one`` where ``value > limit``, ``two`` elsewhere; all vectors."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        return do.select(do.fcmp_ordered(">", given[0], given[1]), given[2], given[3])

    return floats(floats, floats, floats, floats), generate


@njit(nogil=True, cache=True)
def _blend(
    sources: Addresses,
    codes: Numbers,
    sizes: Addresses,
    bits: Addresses,
    sieves: Floats,
    limit: Numbers,
    rules: Numbers,
    scale: Any,
    out: Address,
    count: int,
) -> None:
    elect, result, up_wins = rules
    none, single, opposite = spread(_ZERO), spread(_ONE), spread(-_ONE)
    floor = spread(-_LEAST if up_wins else _ZERO)
    for start in range(0, count, WIDTH):
        at = uint64(start)
        base = load(codes[0], sources[0] + at * sizes[0])
        up, down, first, second, votes = none, none, none, none, none
        for j in range(limit.size):
            low, high, coefficient, share = sieves[j]
            tau = subtracted(load(codes[j + 1], sources[j + 1] + at * sizes[j + 1]), base)
            say = within(low, high, tau, scaled(tau, coefficient))
            if bits[j] != 0:
                say = drawn(bits[j] + at * uint64(2), limit[j], say)
            up = added(up, where_above(say, none, say, none))
            down = added(down, where_above(none, say, say, none))
            if elect == _BY_COUNT:
                votes = added(votes, where_above(say, none, single, none))
                votes = subtracted(votes, where_above(none, say, single, none))
            if result == _MEAN:
                weight = spread(share)
                first = added(first, where_above(say, none, weight, none))
                second = added(second, where_above(none, say, weight, none))
            elif result == _MAX:
                first = where_above(say, first, say, first)
                second = where_above(second, say, say, second)
        delta = added(up, down)
        if elect == _BY_SUM:
            votes = delta
        if elect != _NONE:
            delta = where_above(votes, floor, up, down)
            if result == _MEAN:
                weight = where_above(votes, floor, first, second)
                delta = divided(delta, where_above(weight, none, weight, single))
            elif result == _MAX:
                delta = where_above(votes, floor, first, second)
            elif result == _SIGN:
                delta = where_above(votes, none, single, where_above(none, votes, opposite, none))
        if result != _SIGN:
            delta = added(base, scaled(delta, scale))
        store_floats(delta, out + at * uint64(4))


def blend(
    sources: Sequence[tuple[Array, str]],
    bits: Sequence[Array | None],
    sieves: Floats,
    limits: Numbers,
    rules: Numbers,
    scale: float,
) -> Floats:
    """`evomerge.merge.operators.delta.blended` of flat arrays as `STORED` holds them, with their dtypes; float32 (m,).

    ``sieves`` (N, 4) are low, high, coefficient and share; ``rules`` election, result, and whether up wins.
    """
    count = sources[0][0].size
    whole = count - count % WIDTH
    arrays = [np.require(array, requirements=("C", "A")) for array, _ in sources]
    codes = np.array([CODES[dtype] for _, dtype in sources], dtype=np.int64)
    sizes = np.array([array.itemsize for array in arrays], dtype=np.uint64)
    out = np.empty(count + -count % WIDTH, dtype=np.float32)
    given = (sieves, limits, rules, np.float32(scale))
    _blend(_addresses(arrays), codes, sizes, _addresses(bits), *given, _address(out), whole)
    if whole < count:
        ends = [_padded(array[whole:]) for array in arrays]
        drawn = [None if each is None else _padded(each[whole:]) for each in bits]
        _blend(_addresses(ends), codes, sizes, _addresses(drawn), *given, _address(out[whole:]), WIDTH)
    return out[:count]


def _padded(array: Array) -> Array:
    return np.concatenate([array, np.zeros(WIDTH - array.size, array.dtype)])


def _addresses(arrays: Sequence[Array | None]) -> Addresses:
    """0 for none; the caller holds the arrays while their addresses are in use."""
    return np.array([0 if array is None else _address(array) for array in arrays], dtype=np.uint64)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
