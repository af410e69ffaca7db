"""One exact text for every frozen value: ``load(type(x), dump(x))`` is ``x``, bit for bit.

The type's annotations decide the form, so no class writes its own dump and none can forget a field. Known are
``bool int float str None``, ``tuple``, ``dict[str, X]``, unions, literals, numpy arrays and dataclasses of these;
anything else is refused when dumping. The text is JSON: floats are the shortest decimal that reads back equal,
arrays are dtype, shape and raw bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from evomerge.errors import CodecError

T = TypeVar("T")
_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # json.dumps would make one each time
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]
Pair = tuple[Encode, Decode]


def dump(value: object) -> str:
    """The canonical text of a dataclass instance.

    Raises:
        CodecError: a field holds something its annotation does not promise, or an unknown type.
    """
    encode, _ = _pair(cast(Any, type(value)))
    return _write(encode(value))


def load(kind: type[T], text: str) -> T:
    """The value that ``dump`` wrote as ``text``.

    Raises:
        CodecError: the text is damaged, or belongs to another type or version of it.
    """
    _, decode = _pair(cast(Any, kind))
    try:
        return cast(T, decode(json.loads(text)))
    except CodecError:
        raise
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise CodecError(f"cannot read {kind.__name__} from {text[:80]!r}: {error}") from error


def equal(left: object, right: object) -> bool:
    """Whether two values have the same exact text (arrays included, where ``==`` would be an array)."""
    return type(left) is type(right) and dump(left) == dump(right)


@cache
def _pair(kind: Any) -> Pair:
    """Encoder and decoder of one annotation, built once."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if np.ndarray in (kind, origin):
        return _encode_array, _decode_array
    if hasattr(kind, "__metadata__"):  # Annotated
        return _pair(arguments[0])
    if origin is dict and arguments[0] is str:
        return _mapping(arguments[1])
    if origin in _COMPOSED:
        return _COMPOSED[origin](arguments)
    raise CodecError(f"the codec has no form for {kind!r}; use numbers, text, tuples, arrays or dataclasses of these")


def _exactly(kind: type) -> Encode:
    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise CodecError(f"expected {kind.__name__}, got {type(value).__name__}: {value!r:.80}")
        return value

    return encode


def _decode_exactly(kind: type) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise CodecError(f"expected {kind.__name__}, found {value!r:.80}")
        return value

    return decode


def _encode_float(value: Any) -> Any:
    if type(value) is not float:
        raise CodecError(f"expected float, got {type(value).__name__}: {value!r:.80}")
    return value if math.isfinite(value) else repr(value)


def _decode_float(value: Any) -> float:
    if type(value) is float or value in ("nan", "inf", "-inf"):
        return float(value)
    raise CodecError(f"expected float, found {value!r:.80}")


def _encode_array(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise CodecError(f"expected an array of numbers, got {type(value).__name__}: {value!r:.80}")
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    return [little.dtype.str, list(value.shape), base64.b64encode(little.tobytes()).decode()]


def _decode_array(value: Any) -> Any:
    dtype, shape, text = value
    array = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.dtype(dtype)).reshape(shape)
    array.flags.writeable = False
    return array


_PLAIN: dict[Any, Pair] = {
    bool: (_exactly(bool), _decode_exactly(bool)),
    int: (_exactly(int), _decode_exactly(int)),
    str: (_exactly(str), _decode_exactly(str)),
    type(None): (_exactly(type(None)), _decode_exactly(type(None))),
    None: (_exactly(type(None)), _decode_exactly(type(None))),
    float: (_encode_float, _decode_float),
}


def _tuple(arguments: tuple[Any, ...]) -> Pair:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        encode_item, decode_item = _pair(arguments[0])

        def encode_all(value: Any) -> Any:
            if type(value) is not tuple:
                raise CodecError(f"expected tuple, got {type(value).__name__}: {value!r:.80}")
            return [encode_item(item) for item in value]

        return encode_all, lambda value: tuple(decode_item(item) for item in value)
    pairs = [_pair(argument) for argument in arguments]

    def encode(value: Any) -> Any:
        if type(value) is not tuple or len(value) != len(pairs):
            raise CodecError(f"expected a tuple of {len(pairs)}, got {value!r:.80}")
        return [pair[0](item) for pair, item in zip(pairs, value, strict=True)]

    return encode, lambda value: tuple(pair[1](item) for pair, item in zip(pairs, value, strict=True))


def _mapping(argument: Any) -> Pair:
    encode_item, decode_item = _pair(argument)

    def encode(value: Any) -> Any:
        if type(value) is not dict or not all(type(key) is str for key in value):
            raise CodecError(f"expected a dict with text keys, got {value!r:.80}")
        return {key: encode_item(value[key]) for key in sorted(value)}

    return encode, lambda value: {key: decode_item(item) for key, item in value.items()}


def _literal(arguments: tuple[Any, ...]) -> Pair:
    def check(value: Any) -> Any:
        if value not in arguments:
            raise CodecError(f"expected one of {arguments}, got {value!r:.80}")
        return value

    return check, check


def _union(arguments: tuple[Any, ...]) -> Pair:
    """The member whose type the value has; where several are dataclasses, the value carries its class's name."""
    pairs = {one: _pair(one) for one in arguments}
    classes = {one.__name__: one for one in arguments if isinstance(one, type) and is_dataclass(one)}
    named = classes if len(classes) > 1 else {}
    exact = {one: pair[0] for one, pair in pairs.items() if isinstance(one, type)}

    def encode(value: Any) -> Any:
        kind = type(value)
        if kind in exact:
            text = exact[kind](value)
            return {"": kind.__name__, "value": text} if kind.__name__ in named else text
        return _first_that_takes(value, (pair[0] for pair in pairs.values()), arguments)

    def decode(value: Any) -> Any:
        if value is None and type(None) in pairs:
            return None
        if named and isinstance(value, dict) and value.get("") in named:
            return pairs[named[value[""]]][1](value["value"])
        return _first_that_takes(value, (pair[1] for pair in pairs.values()), arguments)

    return encode, decode


def _first_that_takes(value: Any, forms: Iterable[Encode], arguments: tuple[Any, ...]) -> Any:
    for form in forms:
        with suppress(CodecError, TypeError, ValueError, KeyError):
            return form(value)
    raise CodecError(f"{value!r:.80} is none of {arguments}")


def _dataclass(kind: type) -> Pair:
    names = [field.name for field in fields(kind) if field.init]
    pairs: list[Pair] = []  # filled on first use, since a dataclass may mention itself

    def resolved() -> list[Pair]:
        if not pairs:
            hints = get_type_hints(kind, include_extras=True)
            pairs.extend(_pair(hints[name]) for name in names)
        return pairs

    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise CodecError(f"expected {kind.__name__}, got {type(value).__name__}: {value!r:.80}")
        return [form(getattr(value, name)) for name, (form, _) in zip(names, pairs or resolved(), strict=True)]

    def decode(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(names):
            raise CodecError(f"expected the {len(names)} fields of {kind.__name__}, found {value!r:.80}")
        return kind(*(form(item) for item, (_, form) in zip(value, pairs or resolved(), strict=True)))

    return encode, decode


_COMPOSED: dict[Any, Callable[[tuple[Any, ...]], Pair]] = {
    tuple: _tuple,
    Union: _union,
    types.UnionType: _union,
    Literal: _literal,
}
