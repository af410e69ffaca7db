"""Averaging weighted by how much each model's predictions depend on each of its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import namespace
from evomerge.merge.operators.port import Arrays, Model, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.vectors import BLOCK, dot

_SMALLEST = 1e-30
"""A Fisher information below this root mean square is none."""


@dataclass(frozen=True)
class Fisher(TensorOperator):
    """``sum_i w_i F_i theta_i / sum_i w_i F_i`` (Matena & Raffel 2022), F the diagonal of the Fisher information.

    The pool gives each member's F as its ``fisher`` file (`evomerge.measure.fisher` makes one). Each F is divided by
    its root mean square over the whole model, so that none outweighs the others by its size alone, and then raised to
    at least ``floor``: where nobody's predictions depend on a parameter it is the plain weighted mean. Values: one
    weight per source, and the floor.
    """

    parameters: ClassVar = (
        Parameter("weight", 0.0, 1.0, 0.5, "source", limits=(0.0, math.inf)),
        Parameter("floor", 1e-9, 1e-1, 1e-6, kind="log", limits=(1e-12, 1e6)),
    )

    def values(self, flat: Sequence[float], sources: int) -> Values:
        """A segment's values by name; not all weights may be zero."""
        values = super().values(flat, sources)
        if not any(values.each("weight")):
            raise RecipeError("fisher has no result for weights that are all zero; give one model a weight")
        return values

    def prepare(self, tensor: Tensor, values: Values) -> list[tuple[float, float]]:
        """Each source's share of the weights, and one over its F's root mean square (0 where F is zero everywhere)."""
        weights = values.each("weight")
        sizes = [_size(tensor.model, source) for source in range(tensor.sources)]
        return [
            (weight / math.fsum(weights), 1.0 / size if size > _SMALLEST else 0.0)
            for weight, size in zip(weights, sizes, strict=True)
        ]

    def merge(self, piece: Piece, values: Values, prepared: list[tuple[float, float]]) -> Any:
        """Shares first, which sum to one: a model that alone has a weight is returned exactly."""
        theta, shares = piece.theta, piece.attached("fisher")
        xp = namespace(theta)
        for source, (weight, scale) in enumerate(prepared):
            shares[source] = weight * xp.clip(shares[source] * scale, values.one("floor"), None)
        shares /= xp.sum(shares, axis=0)
        return xp.sum(shares * theta, axis=0)


def _size(model: Model, source: int) -> float:
    """Root mean square of a source's F over the whole model."""

    def compute() -> float:
        squares, count = [], 0
        for tensor in model.tensors():
            squares.append(_square(tensor, source))
            count += tensor.size
        return math.sqrt(math.fsum(squares) / count)

    return model.once(("fisher size", source), compute)


def _square(tensor: Tensor, source: int) -> float:
    """Squared norm of a source's F on one tensor.

    Raises:
        RecipeError: the file has no F for this tensor, or NaN or infinity in it.
    """
    information = tensor.attached("fisher", source)
    if information is None:
        raise RecipeError(f"the fisher file of source {source} has no tensor {tensor.name!r}; make it anew")
    flat = information.reshape(-1)

    def compute() -> Arrays:
        return {"square": np.array([dot(flat, flat, np.empty((2, BLOCK)))])}

    square = float(tensor.remember("square of fisher 1", compute, of=(), attached=[("fisher", source)])["square"][0])
    if not math.isfinite(square):
        raise RecipeError(f"the fisher file of source {source} holds NaN or infinity in {tensor.name!r}; make it anew")
    return square
