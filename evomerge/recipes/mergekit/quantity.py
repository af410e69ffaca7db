"""Values of mergekit's parameters: where each comes from, what it is for a tensor, and how a recipe file says it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.config.yamlfile import Node, Problems
from evomerge.recipes.mergekit.config import Levels
from evomerge.recipes.mergekit.series import literal
from evomerge.recipes.parameters import interpolated

Notation = Any
"""A value as a recipe file says it: a number, a list along the layers, or a list of cases."""

Inner = float | tuple[float, ...]

REST = "*"
"""mergekit's filter for everything, as which a missing filter counts."""


@dataclass(frozen=True, slots=True)
class Where:
    """One tensor: its name in the result, its name in each input of its slice (number ``part``), and its depth there.

    ``step`` of ``steps`` layers; both 0 outside the layers.
    """

    out: str
    own: Mapping[str, str]
    part: int = 0
    step: int = 0
    steps: int = 0


class Unset(Exception):
    """A parameter has no value for a tensor; the text says which and what to do."""


class Quantity(ABC):
    """A number that may differ from tensor to tensor."""

    @abstractmethod
    def at(self, where: Where) -> float:
        """The number for a tensor.

        Raises:
            Unset: there is none.
        """

    @abstractmethod
    def notation(self) -> Notation | None:
        """How a recipe file says it without naming tensors one by one; ``None``: it cannot.

        Raises:
            Unset: there is none for any tensor.
        """

    @property
    def numbered(self) -> bool:
        """Whether it may follow the numbers of layers, which differ between models of different layers."""
        return False


@dataclass(frozen=True)
class Given(Quantity):
    """What the file says: the first level that has a value for a tensor gives it, and else the default.

    ``model``: whose own tensor names filters are compared with; ``None``: the result's. ``line`` is where a missing
    value is missed.
    """

    name: str
    levels: Sequence[Sequence[tuple[str, Inner]]]
    default: float | None
    model: str | None = None

    def at(self, where: Where) -> float:
        """By the rule of mergekit."""
        tensor = where.out if self.model is None else where.own[self.model]
        for level in self.levels:
            found = first_fit(level, tensor, where)
            if found is not None:
                return found
        if self.default is None:
            raise Unset(self._missing(f"the tensor {tensor!r}"))
        return self.default

    def notation(self) -> Notation | None:
        """All levels as one list of cases."""
        cases: list[dict[str, Any]] = []
        for pattern, value in (one for level in self.levels for one in level):
            said: Notation = list(value) if isinstance(value, tuple) else value
            if pattern == REST:
                return [*cases, {"value": said}] if cases else said
            cases.append({"filter": f"*{literal(pattern)}*", "value": said})
        if not cases and self.default is None:
            raise Unset(self._missing("any tensor"))
        if self.default is None:  # the filters may still take every tensor that there is
            return None
        return [*cases, {"value": self.default}] if cases else self.default

    @property
    def numbered(self) -> bool:
        """Whether a filter may name layers."""
        return any(sign.isdecimal() for level in self.levels for pattern, _ in level for sign in pattern)

    def _missing(self, where: str) -> str:
        return f"{self.name} has no value{f' of {self.model}' if self.model else ''} for {where}; give one"


@dataclass(frozen=True)
class Constant(Quantity):
    """The same number for all."""

    value: float

    def at(self, where: Where) -> float:
        """That number."""
        return self.value

    def notation(self) -> Notation | None:
        """That number."""
        return self.value


@dataclass(frozen=True)
class Computed(Quantity):
    """A function of other quantities. ``affine``: of each by itself it is a line, so that it keeps interpolations."""

    function: Callable[..., float]
    of: tuple[Quantity, ...]
    affine: bool = False

    def at(self, where: Where) -> float:
        """The function's value."""
        return self.function(*(one.at(where) for one in self.of))

    def notation(self) -> Notation | None:
        """Only where no two of the others vary."""
        said = [one.notation() for one in self.of]
        varying = [at for at, one in enumerate(said) if not isinstance(one, float)]
        if not varying:
            return self.function(*said)
        if len(varying) > 1 or not self.affine or said[varying[0]] is None:
            return None
        at = varying[0]
        return _mapped(lambda number: self.function(*said[:at], number, *said[at + 1 :]), said[at])

    @property
    def numbered(self) -> bool:
        """Whether one of the others may."""
        return any(one.numbered for one in self.of)


@dataclass(frozen=True)
class BySlice(Quantity):
    """In each slice another."""

    of: tuple[Quantity, ...]

    def at(self, where: Where) -> float:
        """The slice's."""
        return self.of[where.part].at(where)

    def notation(self) -> Notation | None:
        """A number, if all have that one."""
        said = [one.notation() for one in self.of]
        return said[0] if isinstance(said[0], float) and all(one == said[0] for one in said) else None


@dataclass(frozen=True)
class InSlice(Quantity):
    """1 in one slice, and 0 in all others."""

    part: int

    def at(self, where: Where) -> float:
        """Whether the tensor lies there."""
        return float(where.part == self.part)

    def notation(self) -> Notation | None:
        """It varies."""
        return None


def given(name: str, levels: Levels, default: float | None, model: str | None, problems: Problems) -> Given:
    """The values that the levels give a parameter. What is wrong goes to ``problems``."""
    nodes = [node for level in levels if (node := level.child(name)) is not None and node.content is not None]
    found = [level for node in nodes if (level := _level(name, node, problems))]
    return Given(name, found, default, model)


def _level(name: str, node: Node, problems: Problems) -> list[tuple[str, Inner]]:
    """One level as filters and values."""
    if not isinstance(node.content, list) or not any(isinstance(one.content, dict) for one in node.content):
        value = _inner(name, node, problems)
        return [] if value == () else [(REST, value)]
    cases = []
    for one in node.content:
        value, pattern = one.child("value"), one.child("filter")
        if value is None:
            problems.add(one.line, f"{name} has a case without a value; give 'filter: TEXT, value: NUMBER'")
            continue
        text = REST if pattern is None or pattern.content is None else pattern.text
        cases.append((text, _inner(name, value, problems)))
    return cases


def _inner(name: str, node: Node, problems: Problems) -> Inner:
    if isinstance(node.content, list):
        return tuple(_number(name, one, problems) for one in node.content)
    return _number(name, node, problems)


def _number(name: str, node: Node, problems: Problems) -> float:
    if isinstance(node.content, bool | int | float):
        return float(node.content)
    problems.add(
        node.line, f"{name} is {node.shown}; give a number, a list of numbers, or a list of filters and values"
    )
    return 0.0


def first_fit(cases: Sequence[tuple[str, Inner]], tensor: str, where: Where) -> float | None:
    """The value of the first case whose filter is a part of a tensor's name."""
    return next((_along(value, where) for pattern, value in cases if pattern in (REST, "") or pattern in tensor), None)


def _along(value: Inner, where: Where) -> float:
    """A list is spread over the slice; outside the layers its first number counts."""
    if not isinstance(value, tuple):
        return value
    return interpolated(value, where.step, where.steps) if where.steps else value[0]


def _mapped(function: Callable[[float], float], said: Notation) -> Notation:
    if isinstance(said, float):
        return function(said)
    if isinstance(said, dict):
        return {**said, "value": _mapped(function, said["value"])}
    return [_mapped(function, one) for one in said]
