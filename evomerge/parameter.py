"""What an operator declares: parameters that a search may vary, and how many sources it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import RecipeError

Per = Literal["segment", "source", "expert"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a search may vary on a segment.

    Attributes:
        name: as the literature calls it.
        low: smallest value that a search usually tries.
        high: largest value that a search usually tries.
        default: a sensible start, and the value where a recipe file gives none.
        per: it takes one value, one per source, or one per source after the first (the base).
        kind: how a search should step: evenly, by factors, or over whole numbers.
        limits: smallest and largest possible value.
        above: the lower limit itself is impossible, too.
    """

    name: str
    low: float
    high: float
    default: float
    per: Per = "segment"
    kind: Literal["float", "log", "integer"] = "float"
    limits: tuple[float, float] = (-math.inf, math.inf)
    above: bool = False

    def count(self, sources: int) -> int:
        """How many values it takes for so many sources."""
        return {"segment": 1, "source": sources, "expert": max(sources - 1, 0)}[self.per]

    def check(self, value: float) -> None:
        """Refuse a value that has no meaning.

        Raises:
            RecipeError: naming the parameter, the value and what is possible.
        """
        low, high = self.limits
        if not (low < value if self.above else low <= value) or not value <= high or not math.isfinite(value):
            bracket = "(" if self.above or low == -math.inf else "["
            end = ")" if high == math.inf else "]"
            raise RecipeError(
                f"{self.name} = {value} is impossible: it must be in {bracket}{low:g}, {high:g}{end}"
                if math.isfinite(value)
                else f"{self.name} = {value} is no number"
            )
        if self.kind == "integer" and value != round(value):
            raise RecipeError(f"{self.name} = {value} is impossible: it must be a whole number")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a search must know of an operator to propose recipes with it.

    Attributes:
        name: as a recipe names it.
        parameters: in the order in which a segment holds their values.
        based: the first source is the base that the others are told apart from.
        least: fewest sources it takes.
        most: most sources it takes, where there is a limit.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    based: bool = False
    least: int = 1
    most: int | None = None
