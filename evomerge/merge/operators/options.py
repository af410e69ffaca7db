"""Refusing options of an operator that are none of its choices."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Operator


def check_options(operator: Operator) -> None:
    """For an operator's ``__post_init__``: a field that is a `Literal` must have one of its values, an int be whole.

    Raises:
        RecipeError: naming the option, its value and the choices.
    """
    for name, hint in _hints(type(operator)).items():
        value = getattr(operator, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            choices = ", ".join(map(repr, get_args(hint)))
            raise RecipeError(f"{type(operator).__name__} has no {name} {value!r}; it is one of {choices}")
        if hint is int and type(value) is not int:
            raise RecipeError(f"{name} of {type(operator).__name__} is {value!r}; it must be a whole number")


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
