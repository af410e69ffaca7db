"""Sixty-four numbers at a time: vectors as a type of numba's, and the formats that numbers are stored in.

The compiler's own vectors are a guess that a loop over several arrays often loses; these are explicit, on any machine
(a processor with narrower registers takes several). A kernel loads, scales, adds and stores them, and they never leave
the registers in between. Nothing is contracted or reassociated, and conversions are integer arithmetic on bit patterns:
processors differ in what their instructions for bfloat16 and float16 do with tiny numbers, and some have none.

numba does not notice a change in what a kernel calls: after an edit here, empty ``__pycache__`` beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WIDTH = 64
"""Numbers in a vector: enough to keep a processor busy between two decisions, few enough for its registers."""

_PAGE = 4096
"""Bytes that processors do not read ahead across by themselves."""

CODES = {"BF16": 0, "F16": 1, "F32": 2, "F64": 3, "F8_E4M3": 4, "F8_E5M2": 5}
"""What kernels call the safetensors dtypes that can be merged."""

WRITABLE = frozenset({"BF16", "F16", "F32", "F64"})
"""Those that results can be rounded to."""

_NAN = 0x7FC00000
"""The pattern of the usual float32 NaN."""

_BF16, _F16, _F32, _F64, _E4M3, _E5M2 = CODES.values()
_SIZES = {_BF16: 2, _F16: 2, _F32: 4, _F64: 8, _E4M3: 1, _E5M2: 1}

Vector = Any
"""A vector of float32, or of float64 where the text says so."""
Address = Any
"""uint64."""
Value = Any
"""A value of LLVM's."""
Formula = Callable[[Any, Value], Value]
"""From an instruction builder and a vector to a vector."""

instruction: Callable[[Any], Any] = intrinsic
"""Makes a function of numba's from one that writes LLVM's code; numba's own type counts its first argument, too."""


class VectorType(types.Type):
    """A vector of one element type."""

    def __init__(self, element: Any) -> None:
        super().__init__(f"{WIDTH} x {element}")
        self.ir = ir.VectorType(element, WIDTH)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, kind.ir)  # type: ignore[no-untyped-call] # numba says no types here


floats, doubles = VectorType(ir.FloatType()), VectorType(ir.DoubleType())
_words, _halves, _octets = (VectorType(ir.IntType(bits)) for bits in (32, 16, 8))


def _all(kind: VectorType, value: float) -> Value:
    return ir.Constant(kind.ir, [value] * WIDTH)


def _from_bf16(do: Any, stored: Value) -> Value:
    """The upper half of a float32."""
    return do.bitcast(do.shl(do.zext(stored, _words.ir), _all(_words, 16)), floats.ir)


def _to_bf16(do: Any, value: Value) -> Value:
    """Rounded to nearest even: half a unit more, less a little where the last bit that stays is even."""
    bits = do.bitcast(value, _words.ir)
    odd = do.and_(do.lshr(bits, _all(_words, 16)), _all(_words, 1))
    rounded = do.add(bits, do.add(odd, _all(_words, 0x7FFF)))
    halves = do.bitcast(rounded, ir.VectorType(ir.IntType(16), 2 * WIDTH))
    return do.shuffle_vector(halves, halves, ir.Constant(_words.ir, [2 * lane + 1 for lane in range(WIDTH)]))


def _from_small(bits: int, shift: int, bias: int, infinity: int) -> Formula:
    """From a format of fewer exponent bits: put where a float32 has its own, they lack ``2^(127 - bias)``.

    That factor is exact, for subnormal numbers too. ``infinity`` has its pattern shifted likewise; beyond it is NaN.
    """

    def formula(do: Any, stored: Value) -> Value:
        wide = do.zext(stored, _words.ir)
        size = do.shl(do.and_(wide, _all(_words, (1 << (bits - 1)) - 1)), _all(_words, shift))
        scaled = do.fmul(do.bitcast(size, floats.ir), _all(floats, 2.0 ** (127 - bias)))
        found = do.bitcast(scaled, _words.ir)
        found = do.select(do.icmp_unsigned(">=", size, _all(_words, infinity)), _all(_words, 0x7F800000), found)
        found = do.select(do.icmp_unsigned(">", size, _all(_words, infinity)), _all(_words, _NAN), found)
        sign = do.shl(do.lshr(wide, _all(_words, bits - 1)), _all(_words, 31))
        return do.bitcast(do.or_(found, sign), floats.ir)

    return formula


def _to_f16(do: Any, value: Value) -> Value:
    """Rounded to nearest even; what is too large becomes infinite, and NaN stays NaN."""
    bits = do.bitcast(value, _words.ir)
    size = do.and_(bits, _all(_words, 0x7FFFFFFF))
    odd = do.and_(do.lshr(size, _all(_words, 13)), _all(_words, 1))
    normal = do.lshr(do.add(size, do.add(odd, _all(_words, 0xC8000FFF))), _all(_words, 13))
    # the last bit of a number just above 1/2 is 2^-24, as of a subnormal float16: adding rounds it
    small = do.sub(do.bitcast(do.fadd(do.bitcast(size, floats.ir), _all(floats, 0.5)), _words.ir), _half)
    rounded = do.select(do.icmp_unsigned("<", size, _all(_words, 0x38800000)), small, normal)
    rounded = do.select(do.icmp_unsigned(">=", size, _all(_words, 0x47800000)), _all(_words, 0x7C00), rounded)
    rounded = do.select(do.icmp_unsigned(">", size, _all(_words, 0x7F800000)), _all(_words, 0x7E00), rounded)
    sign = do.and_(do.lshr(bits, _all(_words, 16)), _all(_words, 0x8000))
    return do.trunc(do.or_(rounded, sign), _halves.ir)


_half = _all(_words, 0x3F000000)


def _loader(stored: VectorType, size: int, formula: Formula, found: VectorType = floats, far: bool = False) -> Any:
    """A function from an address to a vector; from ``far`` memory, what lies a page on is asked for meanwhile."""

    @instruction
    def load_vector(context: Any, address: Any) -> Any:
        def generate(_: Any, do: Any, __: Any, given: Any) -> Value:
            if far:
                for line in range(0, size * WIDTH, 64):
                    _fetch(do, do.add(given[0], ir.Constant(given[0].type, _PAGE + line)))
            return formula(do, do.load(do.inttoptr(given[0], stored.ir.as_pointer()), align=size))

        return found(types.uint64), generate

    return load_vector


def _fetch(do: Any, address: Value) -> None:
    """Ask for a cache line, wherever it is: a hint, without harm even where there is no memory."""
    octet, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [octet, word, word, word])
    fetch = cgutils.get_or_insert_function(do.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call] # numba
    do.call(fetch, [do.inttoptr(address, octet), *(ir.Constant(word, flag) for flag in (0, 3, 1))])


def _storer(stored: VectorType, size: int, formula: Formula, found: VectorType = floats, past: bool = False) -> Any:
    """A function of a vector and an address; ``past`` the caches, if the address is a multiple of 64."""

    @instruction
    def store_vector(context: Any, vector: Any, address: Any) -> Any:
        def generate(target: Any, do: Any, _: Any, given: Any) -> Value:
            place = do.inttoptr(given[1], stored.ir.as_pointer())
            done = do.store(formula(do, given[0]), place, align=64 if past else size)
            if past:
                done.set_metadata("nontemporal", do.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return target.get_dummy_value()

        return types.void(found, types.uint64), generate

    return store_vector


def _same(do: Any, vector: Value) -> Value:
    return vector


def _plain(do: Any, vector: Value) -> Value:
    """With the one NaN that any sum hands on and any rounding keeps: of others, the last bits may carry over."""
    nan = do.bitcast(_all(_words, _NAN), floats.ir)
    return do.select(do.fcmp_unordered("uno", vector, vector), nan, vector)


def _narrow(do: Any, vector: Value) -> Value:
    return _plain(do, do.fptrunc(vector, floats.ir))


def _wide(do: Any, vector: Value) -> Value:
    return do.fpext(vector, doubles.ir)


load_floats = _loader(floats, 4, _same)
load_doubles = _loader(doubles, 8, _same, doubles)
store_floats = _storer(floats, 4, _same)
store_doubles = _storer(doubles, 8, _same, doubles)
_load_bf16 = _loader(_halves, 2, _from_bf16, far=True)
_load_f16 = _loader(_halves, 2, _from_small(16, 13, 15, 0x0F800000), far=True)
_load_f32 = _loader(floats, 4, _plain, far=True)
_load_f64 = _loader(doubles, 8, _narrow, far=True)
_load_e4m3 = _loader(_octets, 1, _from_small(8, 20, 7, 0x07EFFFFF), far=True)  # no infinity: the variant "fn"
_load_e5m2 = _loader(_octets, 1, _from_small(8, 21, 15, 0x0F800000), far=True)
_store_bf16, _past_bf16 = (_storer(_halves, 2, _to_bf16, past=past) for past in (False, True))
_store_f16 = _storer(_halves, 2, _to_f16)
_past_floats = _storer(floats, 4, _same, past=True)
_store_f64 = _storer(doubles, 8, _wide)


@instruction
def pointer(context: Any, address: Any) -> Any:
    """An address as `numba.carray` takes it."""
    return types.voidptr(types.uint64), lambda _, do, __, given: do.inttoptr(given[0], ir.IntType(8).as_pointer())


@njit(nogil=True)
def load(code: int, address: Address) -> Vector:
    """Stored numbers as float32; those of float64 are rounded. NaN comes in forms that sums and `store` keep NaN."""
    if code == _BF16:
        return _load_bf16(address)
    if code == _F32:
        return _load_f32(address)
    if code == _F16:
        return _load_f16(address)
    if code == _F64:
        return _load_f64(address)
    return _load_e4m3(address) if code == _E4M3 else _load_e5m2(address)


@njit(nogil=True)
def store(code: int, vector: Vector, address: Address, past: bool) -> None:
    """Float32 numbers rounded to one of the formats that are `WRITABLE`.

    ``past`` the caches where the format allows it, so that memory is not read before: to multiples of 64 only.
    """
    if code == _BF16:
        if past:
            _past_bf16(vector, address)
        else:
            _store_bf16(vector, address)
    elif code == _F32:
        if past:
            _past_floats(vector, address)
        else:
            store_floats(vector, address)
    elif code == _F16:
        _store_f16(vector, address)
    else:
        _store_f64(vector, address)


@instruction
def scaled(context: Any, vector: Any, factor: Any) -> Any:
    """Float32 numbers times a float32."""

    def generate(_: Any, do: Any, __: Any, given: Any) -> Value:
        one = do.insert_element(ir.Constant(floats.ir, ir.Undefined), given[1], ir.Constant(ir.IntType(32), 0))
        return do.fmul(given[0], do.shuffle_vector(one, one, _all(_words, 0)))

    return floats(floats, types.float32), generate


@instruction
def added(context: Any, one: Any, two: Any) -> Any:
    """Sums, lane by lane."""
    return one(one, two), lambda _, do, __, given: do.fadd(*given)


@instruction
def multiplied(context: Any, one: Any, two: Any) -> Any:
    """Products, lane by lane."""
    return one(one, two), lambda _, do, __, given: do.fmul(*given)


@instruction
def widened(context: Any, vector: Any) -> Any:
    """Float32 as float64."""
    return doubles(floats), lambda _, do, __, given: _wide(do, given[0])
