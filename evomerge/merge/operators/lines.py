"""Linear combinations with coefficients of their own for every row, or every column, of a tensor."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.angles import STRAIGHT
from evomerge.merge.operators.arrays import beside
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import BLOCK

Axis = Literal["last", "first"]
Coefficients = NDArray[np.float64]
Products = NDArray[np.float64]
"""Inner products of K vectors on each of L lines, (K, K, L)."""


class LineOperator(TensorOperator):
    """A line is what lies along one axis: the last (a row of an out x in matrix), or the first (a column).

    A tensor of one axis is a single line. With a base (the first source) the lines are those of the task vectors.
    """

    @property
    def along(self) -> Axis:
        """Which axis the lines lie along."""
        return "last"

    @abstractmethod
    def combine(self, values: Values, products: Products) -> Coefficients:
        """One coefficient per vector and line, (K, L)."""

    def prepare(self, tensor: Tensor, values: Values) -> NDArray[np.float32]:
        """One coefficient per source and line; the inner products are found once per pool."""
        found = self.combine(values, line_products(tensor, self.along, self.based))
        if self.based:
            found = np.concatenate([1.0 - found.sum(axis=0, keepdims=True), found])
        return found.astype(np.float32)

    def merge(self, piece: Piece, values: Values, prepared: NDArray[np.float32]) -> Any:
        """``sum_j c_j theta_j``, left to right."""
        theta = piece.theta
        _, columns = shape(piece.tensor, self.along)
        at = np.arange(piece.start, piece.start + theta.shape[-1])
        line = at // columns if self.along == "last" else at % columns
        coefficients = beside(prepared[:, line], theta)
        total = coefficients[0] * theta[0]
        for one, coefficient in zip(theta[1:], coefficients[1:], strict=True):
            total += coefficient * one
        return total


@dataclass(frozen=True)
class NuSlerpAxis(LineOperator):
    """`NuSlerp` of each row, or with ``axis = "first"`` of each column, by itself. Value: one ``t``.

    mergekit has it as nuslerp without ``nuslerp_flatten``; its ``nuslerp_row_wise`` takes the columns.
    """

    axis: Axis = "last"

    parameters: ClassVar = (Parameter("t", 0.0, 1.0, 0.5),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def along(self) -> Axis:
        """Which axis the lines lie along."""
        return self.axis

    def combine(self, values: Values, products: Products) -> Coefficients:
        """The weights of A and B, line by line."""
        t = values.one("t")
        omega = np.arccos(cosine(products, 0, 1))
        sine = np.sin(omega)
        straight = sine <= STRAIGHT
        sine[straight] = 1.0
        arc = np.stack([np.sin((1.0 - t) * omega), np.sin(t * omega)]) / sine
        return np.where(straight, np.array([[1.0 - t], [t]]), arc)


@dataclass(frozen=True)
class TaskNuSlerpAxis(NuSlerpAxis):
    """`NuSlerpAxis` between two task vectors; the first source is the base."""

    least: ClassVar[int] = 3
    most: ClassVar[int | None] = 3
    based: ClassVar[bool] = True


def cosine(products: Products, i: int, j: int) -> Coefficients:
    """Of the angle between two vectors on each line, 0 where one of them is zero."""
    scale = np.sqrt(products[i, i]) * np.sqrt(products[j, j])
    found = np.zeros_like(scale)
    np.divide(products[i, j], scale, out=found, where=scale > 0.0)
    cosines: Coefficients = np.clip(found, -1.0, 1.0)
    return cosines


def shape(tensor: Tensor, along: Axis) -> tuple[int, int]:
    """The tensor as rows and columns: its rows are the lines along the last axis, its columns those along the first."""
    sides = tensor.shape or (1,)
    columns = sides[-1] if along == "last" else tensor.size // max(1, sides[0])
    return tensor.size // max(1, columns), columns


def line_products(tensor: Tensor, along: Axis, deltas: bool) -> Products:
    """Inner products of the sources, or of what all after the first have learned, line by line in float64."""
    rows, columns = shape(tensor, along)
    count = tensor.sources - deltas
    step = max(1, BLOCK // max(1, columns))

    def compute() -> dict[str, Products]:
        products = np.zeros((count, count, rows if along == "last" else columns))
        for first, stop in chunks(rows, step):
            block = _vectors(tensor, first * columns, stop * columns, deltas).reshape(count, -1, columns)
            for i in range(count):
                for j in range(i + 1):
                    if along == "last":
                        products[i, j, first:stop] = np.add.reduce(block[i] * block[j], axis=1)
                    else:
                        products[i, j] += np.add.reduce(block[i] * block[j], axis=0)
                    products[j, i] = products[i, j]
        return {"products": products}

    return tensor.remember(f"products along the {along} axis 1 {deltas}", compute)["products"]


def _vectors(tensor: Tensor, start: int, stop: int, deltas: bool) -> NDArray[np.float64]:
    """Elements of all sources, or their differences from the first."""
    theta = np.stack([tensor.read(source, start, stop).astype(np.float64) for source in range(tensor.sources)])
    return theta[1:] - theta[0] if deltas else theta
