"""What every operator says of itself must be true, whatever kind it is."""

from __future__ import annotations

import math
from abc import ABC
from typing import ClassVar

import numpy as np
import pytest

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Operator, Parameter, operator


class DeclarationContract(ABC):
    """The part that is common to the contracts of all kinds of operators."""

    name: ClassVar[str]
    options: ClassVar[tuple[tuple[str, str | int | float | bool], ...]] = ()
    sources: ClassVar[int]
    """How many sources the recipes here merge."""

    def operator(self) -> Operator:
        return operator(self.name, self.options)

    def values(self, seed: int = 0) -> tuple[float, ...]:
        """Some values within the declared range."""
        draw = np.random.default_rng(seed)
        return tuple(
            _within(parameter, float(draw.random()))
            for parameter in self.operator().parameters
            for _ in range(parameter.count(self.sources))
        )

    def test_defaults_and_ranges_are_possible_values(self) -> None:
        for parameter in self.operator().parameters:
            assert parameter.low <= parameter.default <= parameter.high
            for value in (parameter.low, parameter.default, parameter.high):
                parameter.check(value)

    def test_impossible_values_are_refused_by_name(self) -> None:
        merge = self.operator()
        flat = self.values()
        at = 0
        for parameter in merge.parameters:
            low, high = parameter.limits
            beyond = [low - 1.0] * (low > -math.inf) + [high + 1.0] * (high < math.inf)
            for bad in (math.nan, math.inf, *beyond):
                with pytest.raises(RecipeError, match=parameter.name):
                    merge.values((*flat[:at], bad, *flat[at + 1 :]), self.sources)
            at += parameter.count(self.sources)

    def test_options_are_refused_unless_known(self) -> None:
        with pytest.raises(RecipeError, match="nonsense"):
            operator(self.name, (*self.options, ("nonsense", 1)))


def _within(parameter: Parameter, share: float) -> float:
    value = parameter.low + share * (parameter.high - parameter.low)
    return float(round(value)) if parameter.kind == "integer" else value
