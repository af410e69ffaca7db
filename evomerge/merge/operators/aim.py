"""Holding back what a merge changes in the inputs that the base uses most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.operators.arrays import beside
from evomerge.merge.operators.port import Grain, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import Floats


@dataclass(frozen=True)
class AIM(TensorOperator):
    """``theta_0 + (theta - theta_0) (1 - a_j (1 - omega))`` for input channel j (Nobari et al. 2025).

    It comes after any merge: the first source is the base, the second the merged model. ``a`` is the mean size of the
    channel's input in the base, divided by the tensor's largest; the pool gives those means as the base's
    ``activations`` file (`evomerge.measure.activations` makes one). Tensors that the file does not name, embeddings for
    one, stay as they were merged. Value: one ``omega``, what is left of the change in the most active channel.
    """

    parameters: ClassVar = (Parameter("omega", 0.2, 1.0, 0.4, limits=(0.0, 1.0)),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    based: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def grain(self, tensor: Tensor) -> Grain:
        """Whole rows: a channel is a column, or a row where the layer multiplies from the other side."""
        return "row"

    def prepare(self, tensor: Tensor, values: Values) -> Floats | None:
        """What is left of a change: per column (1, columns) or per row (rows, 1)."""
        activations = tensor.attached("activations", 0)
        if activations is None:
            return None
        columns = tensor.shape[-1] if tensor.shape else 1
        means = np.atleast_2d(activations).astype(np.float64)
        if means.shape not in {(1, columns), (tensor.size // columns, 1)}:
            raise RecipeError(
                f"the base has activations of {activations.shape} for {tensor.name!r} of {tensor.shape}; make them anew"
            )
        largest = float(means.max())
        if not (means.min() >= 0.0 and math.isfinite(largest)):
            raise RecipeError(f"the base's activations of {tensor.name!r} are negative or not finite; make them anew")
        shares = means / largest if largest > 0.0 else means
        return (1.0 - shares * (1.0 - values.one("omega"))).astype(np.float32)

    def merge(self, piece: Piece, values: Values, prepared: Floats | None) -> Any:
        """Both ends are exact: the merged model where everything is left of its change, the base where nothing is."""
        base, merged = piece.theta
        if prepared is None:
            return merged
        first = piece.start // base.shape[-1]
        left = beside(prepared[first : first + base.shape[0]] if len(prepared) > 1 else prepared, base)
        return left * merged + (1.0 - left) * base
