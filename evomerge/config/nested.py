"""Plugins that the settings of a plugin name: the strategy of each stage, say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from evomerge.settings import Choice


def choices(settings: Any) -> Iterator[Choice]:
    """Every plugin named anywhere in a value of settings, outer ones first."""
    if isinstance(settings, Choice):
        yield settings
    for inner in _parts(settings):
        yield from choices(inner)


def replaced(settings: Any, new: Callable[[Choice], Choice]) -> Any:
    """The value with ``new`` in the place of each outermost `Choice`."""
    if isinstance(settings, Choice):
        return new(settings)
    if is_dataclass(settings) and not isinstance(settings, type):
        changed = {one.name: replaced(getattr(settings, one.name), new) for one in fields(settings)}
        same = all(changed[one.name] is getattr(settings, one.name) for one in fields(settings))
        return settings if same else replace(settings, **changed)
    if isinstance(settings, tuple):
        inner = tuple(replaced(one, new) for one in settings)
        return settings if all(a is b for a, b in zip(inner, settings, strict=True)) else inner
    return settings


def _parts(settings: Any) -> Iterator[Any]:
    if is_dataclass(settings) and not isinstance(settings, type):
        yield from (getattr(settings, one.name) for one in fields(settings))
    elif isinstance(settings, tuple):
        yield from settings
