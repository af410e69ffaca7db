"""The Operator port, for operators whose result is a linear combination of their sources on every segment.

An operator is a frozen dataclass whose fields are its options (``Recipe.options`` by name), so it is pure and hashable.
It sees a segment's values and, if it asks, the angle between its two sources; it never sees weights. That keeps
every recipe exact in coefficient space. The contract is checked by `evomerge.testing.operator.OperatorContract`:

* ``coefficients`` is a pure function that returns one finite number per source;
* it copes with an angle that is ``None`` (a source is zero), 0 or pi;
* an impossible value is a `RecipeError` that names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from evomerge.errors import RecipeError
from evomerge.plugins import load

Scope = Literal["global", "per_segment"]
Angle = Callable[[Scope], float | None]
"""Angle in radians between the two sources, over all groups or over the segment; ``None`` if one of them is zero."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a search may vary on a segment: usual range and a sensible start.

    ``per`` says how many values it takes: one, one per source, or one per source after the first (the base).
    """

    name: str
    low: float
    high: float
    default: float
    per: Literal["segment", "source", "expert"]


class Operator(ABC):
    """Turns a segment's values into coefficients of the sources."""

    parameter: ClassVar[Parameter]
    least: ClassVar[int] = 0
    """Fewest sources it takes."""
    most: ClassVar[int | None] = None
    """Most sources it takes, where there is a limit."""

    @abstractmethod
    def coefficients(self, values: Sequence[float], angle: Angle) -> tuple[float, ...]:
        """One coefficient per source, for a segment with these values (as many as `width` says).

        Raises:
            RecipeError: values that have no result.
        """

    def width(self, sources: int) -> int:
        """How many values each segment has for so many sources."""
        return {"segment": 1, "source": sources, "expert": max(sources - 1, 0)}[self.parameter.per]

    def check_sources(self, sources: int) -> None:
        """Refuse a number of sources that the operator has no meaning for.

        Raises:
            RecipeError: naming how many it takes.
        """
        if sources < self.least or (self.most is not None and sources > self.most):
            wanted = f"{self.least}" if self.most == self.least else f"{self.least} to {self.most or 'any number of'}"
            raise RecipeError(f"{type(self).__name__} takes {wanted} sources, the recipe has {sources}")


@lru_cache(maxsize=256)
def operator(name: str, options: tuple[tuple[str, str | int | float | bool], ...] = ()) -> Operator:
    """The operator of that name with these options.

    Raises:
        PluginError: nobody offers the name.
        RecipeError: it has no such option, or not that value.
    """
    kind = load("operators", name)
    if not (isinstance(kind, type) and issubclass(kind, Operator)):
        raise RecipeError(f"{name!r} is no operator: it must be a subclass of evomerge.merge.operators.port.Operator")
    try:
        return kind(**dict(options))
    except TypeError as error:
        raise RecipeError(f"operator {name!r} does not take the options {dict(options)}: {error}") from error
