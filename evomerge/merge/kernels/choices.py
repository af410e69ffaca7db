"""Differences, comparisons and choices, sixty-four numbers at a time: what `lanes` lacks to decide.

numba does not notice a change in what a kernel calls: after an edit here, empty ``__pycache__`` beside this file.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from evomerge.merge.kernels.lanes import WIDTH, VectorType, floats, instruction

sets = VectorType(ir.IntType(64))
"""Sixty-four sets of sixty-four bits."""
_words, _halves = (VectorType(ir.IntType(bits)).ir for bits in (32, 16))
_nothing = ir.Constant(floats.ir, [0.0] * WIDTH)


def _spread(do: Any, scalar: Any, kind: Any) -> Any:
    """A number in every lane."""
    one = do.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return do.shuffle_vector(one, one, _all(0))


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
def magnitudes(context: Any, vector: Any) -> Any:
    """Without the sign bit."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        bits = do.and_(do.bitcast(given[0], _words), _all(0x7FFFFFFF))
        return do.bitcast(bits, floats.ir)

    return floats(floats), generate


@instruction
def within(context: Any, low: Any, high: Any, size: Any, value: Any) -> Any:
    """``value`` where ``low <= size <= high``, and else 0."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        low, high, size, value = given
        above = do.fcmp_ordered(">=", size, _spread(do, low, floats.ir))
        below = do.fcmp_ordered("<=", size, _spread(do, high, floats.ir))
        return do.select(do.and_(above, below), value, _nothing)

    return floats(types.float32, types.float32, floats, floats), generate


@instruction
def where_set(context: Any, bits: Any, value: Any) -> Any:
    """``value`` where the bits of a uint64 are set, from the lowest on, and else 0."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        return do.select(do.bitcast(given[0], ir.VectorType(ir.IntType(1), WIDTH)), given[1], _nothing)

    return floats(types.uint64, floats), generate


@instruction
def where_above(context: Any, value: Any, limit: Any, one: Any, two: Any) -> Any:
    """``one`` where ``value > limit``, ``two`` elsewhere; all vectors."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        return do.select(do.fcmp_ordered(">", given[0], given[1]), given[2], given[3])

    return floats(floats, floats, floats, floats), generate


@instruction
def store_bins(context: Any, vector: Any, place: Any) -> Any:
    """The bins of `kernels.magnitudes` that numbers, none of them negative, are in: uint16, at an address."""

    def generate(context: Any, do: Any, _: Any, given: Any) -> Any:
        bits = do.bitcast(given[0], _words)
        upper = do.shl(do.lshr(bits, _all(16)), _all(1))
        low = do.zext(do.icmp_unsigned("!=", do.and_(bits, _all(0xFFFF)), _all(0)), _words)
        do.store(do.trunc(do.or_(upper, low), _halves), do.inttoptr(given[1], _halves.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(floats, types.uint64), generate


def _all(number: int) -> Any:
    return ir.Constant(_words, [number] * WIDTH)


@instruction
def no_bits(context: Any, like: Any) -> Any:
    """Empty sets."""
    return sets(like), lambda _, do, __, given: ir.Constant(sets.ir, [0] * WIDTH)


@instruction
def or_lacking(context: Any, bits: Any, place: Any) -> Any:
    """Sets, and what is not in those at an address."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        return do.or_(given[0], do.not_(do.load(do.inttoptr(given[1], sets.ir.as_pointer()), align=8)))

    return sets(sets, types.uint64), generate


@instruction
def and_lacking(context: Any, bits: Any, place: Any) -> Any:
    """Sets, less what is in those at an address."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Any:
        return do.and_(given[0], do.not_(do.load(do.inttoptr(given[1], sets.ir.as_pointer()), align=8)))

    return sets(sets, types.uint64), generate


@instruction
def store_bits(context: Any, bits: Any, place: Any) -> Any:
    """Sets, at an address."""

    def generate(context: Any, do: Any, _: Any, given: Any) -> Any:
        do.store(given[0], do.inttoptr(given[1], sets.ir.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(sets, types.uint64), generate
