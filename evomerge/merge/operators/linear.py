"""Weighted sums of models, and of differences from a base."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values


@dataclass(frozen=True)
class Linear(LinearOperator):
    """``sum_i w_i theta_i``, divided by ``sum_i w_i`` if ``normalize``.

    Without sources it is the zero vector, to add noise to. Values: one weight per source.
    """

    normalize: bool = False

    parameters: ClassVar = (Parameter("weight", 0.0, 1.0, 0.5, "source"),)
    least: ClassVar[int] = 0

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The weights themselves, or their shares."""
        weights = values.each("weight")
        if not self.normalize:
            return weights
        total = math.fsum(weights)
        if abs(total) <= 1e-12 * math.fsum(map(abs, weights)):
            raise RecipeError(f"linear cannot normalize the weights {weights}: they sum to zero")
        return tuple(weight / total for weight in weights)


@dataclass(frozen=True)
class TaskArithmetic(LinearOperator):
    """``theta_0 + sum_i lambda_i (theta_i - theta_0)`` (Ilharco et al. 2023), as a sum over the models themselves.

    The first source is the base. Values: one lambda per source after it.
    """

    parameters: ClassVar = (Parameter("lambda", 0.0, 1.5, 0.3, "expert"),)
    based: ClassVar[bool] = True

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The base's share ``1 - sum lambda`` and the lambdas."""
        lambdas = values.each("lambda")
        return (1.0 - math.fsum(lambdas), *lambdas)
