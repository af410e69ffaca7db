"""Weighted sums of models, and of differences from a base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Angle, Operator, Parameter


@dataclass(frozen=True)
class Linear(Operator):
    """``sum_i w_i theta_i``, divided by ``sum_i w_i`` if ``normalize``.

    Without sources it is the zero vector, to add noise to. Values: one weight per source.
    """

    normalize: bool = False

    parameter: ClassVar = Parameter("weight", 0.0, 1.0, 0.5, "source")

    def coefficients(self, values: Sequence[float], angle: Angle) -> tuple[float, ...]:
        """The weights themselves, or their shares."""
        if not self.normalize:
            return tuple(values)
        total = math.fsum(values)
        if abs(total) <= 1e-12 * math.fsum(map(abs, values)):
            raise RecipeError(f"linear cannot normalize the weights {tuple(values)}: they sum to zero")
        return tuple(value / total for value in values)


@dataclass(frozen=True)
class TaskArithmetic(Operator):
    """``theta_0 + sum_i lambda_i (theta_i - theta_0)`` (Ilharco et al. 2023), as a sum over the models themselves.

    The first source is the base. Values: one lambda per source after it.
    """

    parameter: ClassVar = Parameter("lambda", 0.0, 1.5, 0.3, "expert")
    least: ClassVar[int] = 1

    def coefficients(self, values: Sequence[float], angle: Angle) -> tuple[float, ...]:
        """The base's share ``1 - sum lambda`` and the lambdas."""
        return (1.0 - math.fsum(values), *values)
