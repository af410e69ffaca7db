"""What a type annotation accepts, in words for a person who wrote something else."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from evomerge.settings import Choice

_UNIONS = (Union, types.UnionType)
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "nothing (null)",
    Choice: "a name and its settings",
}
_LIMITS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}", "min_length": "of length >= {}"}


def described(hint: Any) -> str:
    """What to give where ``hint`` is the annotation, such as ``a whole number > 0``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [text.format(limit) for name, text in _LIMITS.items() for limit in _limits(arguments[1:], name)]
        return " ".join((described(arguments[0]), " and ".join(limits))).strip()
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in _UNIONS:
        return " or ".join(described(one) for one in arguments)
    return _WORDS.get(hint) or _container(hint, origin, arguments)


def _limits(metadata: tuple[Any, ...], name: str) -> list[Any]:
    found = (getattr(one, name, None) for one in metadata)
    return [limit for limit in found if limit is not None]


def _container(hint: Any, origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each item {described(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(described(one) for one in arguments)}"
    if origin is dict:
        return f"name: value pairs, each value {described(arguments[1])}"
    return f"keys and values below it: {', '.join(keys_of(hint))}" if is_dataclass(hint) else str(hint)


def dataclasses_of(hint: Any) -> tuple[Any, ...]:
    """The dataclasses that a mapping may stand for where ``hint`` is the annotation."""
    if get_origin(hint) in (*_UNIONS, Annotated):
        return tuple(kind for one in get_args(hint) for kind in dataclasses_of(one))
    return (hint,) if isinstance(hint, type) and is_dataclass(hint) else ()


def keys_of(hint: Any) -> tuple[str, ...]:
    """The keys that a mapping may have where ``hint`` is the annotation."""
    return tuple(one.name for kind in dataclasses_of(hint) for one in fields(kind))


def step_into(hint: Any, step: int | str) -> Any:
    """The annotation one step further in; None where there is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return get_type_hints(hint, include_extras=True).get(str(step))
    if origin in (*_UNIONS, Annotated):
        members = arguments[:1] if origin is Annotated else arguments
        if step == "kind":  # of settings classes that it tells apart: any of their kinds
            kinds = [name for one in members for name in get_args(step_into(one, step))]
            return Literal[tuple(kinds)] if kinds else None
        return next((found for one in members if (found := step_into(one, step)) is not None), None)
    if origin is dict and isinstance(step, str):
        return arguments[1]
    if origin is tuple and isinstance(step, int):
        return dict(enumerate(arguments)).get(0 if arguments[-1] is Ellipsis else step)
    return None
