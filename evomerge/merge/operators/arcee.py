"""Arcee Fusion: taking from another model what changed much where it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.arrays import beside, namespace
from evomerge.merge.operators.port import Grain, Parameter, Piece, Tensor, TensorOperator, Values
from evomerge.merge.operators.statistics import Streamed
from evomerge.merge.tensorfile import Floats

_EPSILON = 1e-8


@dataclass(frozen=True)
class ArceeFusion(TensorOperator):
    """The second source where its importance is at least ``median + fence (Q3 - Q1)``, and else the base (mergekit).

    The importance of an entry is ``|theta_1 - theta_0|`` times the Kullback-Leibler divergence of its row from the
    base's, each turned into probabilities by softmax (plus 1e-8). Quartiles are those of the whole tensor: of n
    importances in order the one at ``floor(q (n - 1))``. A tensor of one axis is a row.

    mergekit's arcee_fusion is this with ``fence = 1.5``. Of tensors beyond a million entries it takes the quartiles of
    a sample drawn without a seed, here they are exact; it computes the divergence in the models' dtype, which leaves
    little of it where rows differ little, here that is float64. Value: one fence.
    """

    parameters: ClassVar = (Parameter("fence", 0.0, 3.0, 1.5),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    based: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def grain(self, tensor: Tensor) -> Grain:
        """Divergences are those of rows."""
        return "row"

    def prepare(self, tensor: Tensor, values: Values) -> tuple[Floats, float]:
        """The divergence of each row, and the least importance that counts."""

        def compute() -> dict[str, NDArray[Any]]:
            divergences = _divergences(tensor)
            found = Streamed(lambda: _importances(tensor, divergences))
            quartiles = [found.nth_largest(found.size - int(q * (found.size - 1))) for q in (0.25, 0.5, 0.75)]
            return {"divergences": divergences, "quartiles": np.array(quartiles)}

        found = tensor.remember("arcee fusion 1", compute)
        low, median, high = found["quartiles"].tolist()
        return found["divergences"], median + values.one("fence") * (high - low)

    def merge(self, piece: Piece, values: Values, prepared: tuple[Floats, float]) -> Any:
        """Either source's entries, exactly."""
        divergences, least = prepared
        base, other = piece.theta
        rows, columns = base.shape
        first = piece.start // columns
        importance = namespace(base).abs(other - base) * beside(divergences[first : first + rows, None], base)
        return namespace(base).where(importance >= least, other, base)


def _divergences(tensor: Tensor) -> Floats:
    """Of each row."""
    found = []
    for piece in tensor.pieces("row"):
        base, other = _probabilities(piece.source(0)), _probabilities(piece.source(1))
        found.append(np.add.reduce(other * np.log(other / base), axis=-1))
    divergences: Floats = np.maximum(np.concatenate(found), 0.0).astype(np.float32)
    return divergences


def _probabilities(rows: Floats) -> NDArray[np.float64]:
    powers = np.exp(rows.astype(np.float64) - rows.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / np.add.reduce(powers, axis=-1, keepdims=True) + _EPSILON
    return shares


def _importances(tensor: Tensor, divergences: Floats) -> Iterator[Floats]:
    for piece in tensor.pieces("row"):
        tau = np.abs(piece.source(1) - piece.source(0))
        first = piece.start // tau.shape[-1]
        yield (tau * divergences[first : first + len(tau), None]).reshape(-1)
