"""The bits of a float32 as a whole number and back, one scalar at a time, in a form that compilers vectorise."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _pattern_of(context: Any, value: Any) -> Any:
    """The bits of a float32, uint32."""
    return types.uint32(types.float32), lambda _, builder, __, given: builder.bitcast(given[0], ir.IntType(32))


def _value_of(context: Any, pattern: Any) -> Any:
    """The float32 with these bits, uint32."""
    return types.float32(types.uint32), lambda _, builder, __, given: builder.bitcast(given[0], ir.FloatType())


pattern_of: Any = intrinsic(_pattern_of)
value_of: Any = intrinsic(_value_of)
