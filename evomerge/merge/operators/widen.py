"""Task vectors weighted column by column, by how much each has changed a column's size and direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.kinds import is_embeddings
from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.port import Arrays, Grain, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.operators.statistics import sums
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import BLOCK

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Widen(TensorOperator):
    """``theta_0 + lambda sum_i score_i (theta_i - theta_0)``, one score per expert and column (Yu et al. 2024, WIDEN).

    A column holds the weights of one input (the last axis), in token embeddings those of one token (the first axis).
    Within each expert the columns are ranked by how much their norm changed, and by how much their direction did;
    ``rank / columns`` is a column's significance. Its score is the softmax of the experts' significances, or ``s``
    where its own exceeds ``t`` times the mean one; the mean of both rankings counts. In tensors of one axis each
    entry's ``|theta_i - theta_0|`` is its significance. Values: ``t``, ``s``, ``lambda``.
    """

    parameters: ClassVar = (
        Parameter("t", 0.0, 2.0, 1.0),
        Parameter("s", 0.5, 2.0, 1.0),
        Parameter("lambda", 0.5, 1.5, 1.0),
    )
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    def grain(self, tensor: Tensor) -> Grain:
        """Whole rows."""
        return "row"

    def prepare(self, tensor: Tensor, values: Values) -> Any:
        """Scores (experts, 1, columns) or (experts, rows, 1); of one axis the mean significances (experts, 1, 1)."""
        experts = range(1, tensor.sources)
        if len(tensor.shape) < 2:
            means = [sums(tensor, expert).absolute / tensor.size for expert in experts]
            return np.array(means, dtype=np.float32).reshape(-1, 1, 1)
        by_row = is_embeddings(tensor.name)
        ranks = _ranks(tensor, by_row)
        columns = ranks["norm"].shape[1]
        both = [_scores(ranks[what] / columns, (columns - 1) / 2 / columns, values) for what in ("norm", "direction")]
        scores: Floats = ((both[0] + both[1]) / 2.0).astype(np.float32)
        return scores[:, :, None] if by_row else scores[:, None, :]

    def merge(self, piece: Piece, values: Values, prepared: Any) -> Any:
        """As a sum over the models themselves: a single expert with score 1 is returned exactly."""
        theta = piece.theta
        scores = beside(self._cut(piece, prepared), theta)
        if len(piece.tensor.shape) < 2:
            scores = _scores(namespace(theta).abs(theta[1:] - theta[0]), scores, values)
        scores = values.one("lambda") * scores
        merged = (1.0 - namespace(theta).sum(scores, axis=0)) * theta[0]
        for score, expert in zip(scores, theta[1:], strict=True):
            merged += score * expert
        return merged

    def _cut(self, piece: Piece, prepared: Any) -> Any:
        """The rows of this piece, where each has scores of its own."""
        if prepared.shape[1] == 1:
            return prepared
        rows, columns = piece.theta.shape[1:]
        first = piece.start // columns
        return prepared[:, first : first + rows]


def _scores(significance: Any, means: Any, values: Values) -> Any:
    """Softmax over the experts (the first axis), or ``s`` where a significance exceeds ``t`` times the mean."""
    xp = namespace(significance)
    powers = xp.exp(significance - xp.max(significance, axis=0))
    softmax = powers / xp.sum(powers, axis=0)
    return xp.where(significance > values.one("t") * means, values.one("s"), softmax)


def _ranks(tensor: Tensor, by_row: bool) -> Arrays:
    """Every column's rank (0 the least changed) by ``norm`` and by ``direction``, (experts, columns) each."""

    def compute() -> Arrays:
        squares, products = _column_sums(tensor, by_row)
        norms = np.sqrt(squares)
        size = np.abs(norms[1:] - norms[0])
        return {"norm": _ranked(size), "direction": _ranked(1.0 - _cosines(squares, products))}

    return tensor.remember(f"widen ranks 1 {by_row}", compute)


def _column_sums(tensor: Tensor, by_row: bool) -> tuple[Doubles, Doubles]:
    """Squared norms of every source's columns (sources, columns), and products with the base's (experts, columns)."""
    from evomerge.merge.kernels.columns import add_products

    width = max(1, tensor.shape[-1])
    rows = tensor.size // width
    squares = np.zeros((tensor.sources, rows if by_row else width))
    products = np.zeros((tensor.sources - 1, rows if by_row else width))
    for first, last in chunks(rows, max(1, BLOCK // width)):
        theta = [
            tensor.read(source, first * width, last * width).reshape(-1, width) for source in range(tensor.sources)
        ]
        part = slice(first, last) if by_row else slice(None)
        for source, block in enumerate(theta):
            one, base = (block.T, theta[0].T) if by_row else (block, theta[0])
            add_products(one, one, squares[source, part])
            if source:
                add_products(one, base, products[source - 1, part])
    return squares, products


def _cosines(squares: Doubles, products: Doubles) -> Doubles:
    """Of each column with the base's; exactly 1 where they are equal, 0 where one of them is zero."""
    scale = np.sqrt(squares[1:] * squares[0])
    alike = np.where((squares[1:] == 0.0) & (squares[0] == 0.0), 1.0, 0.0)
    np.divide(products, scale, out=alike, where=scale > 0.0)
    return alike


def _ranked(changes: Doubles) -> NDArray[np.int32]:
    """The rank of each entry within its row, equal ones in the order of their places."""
    order = np.argsort(changes, axis=1, kind="stable")
    ranks = np.empty(changes.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(changes.shape[1], dtype=np.int32)[None, :], axis=1)
    return ranks
