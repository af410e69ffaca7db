"""LoRA-LEGO: the rank-one parts of all adapters, clustered, and one part for each cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.adapters.factors import Doubles, Factors, rounded
from evomerge.merge.adapters.operators.clusters import Clusters, k_means
from evomerge.merge.adapters.port import FactorOperator, Module
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import Parameter, Values

Norm = Literal["none", "two", "max"]


@dataclass(frozen=True)
class LoraLego(FactorOperator):
    """Rank-wise clustering (LoRA-LEGO, Zhao et al. 2025): ``Delta W = lambda sum_c b_c a_c'`` over ``k`` clusters.

    The units of all adapters, a column ``b`` of ``s B`` and its row ``a`` of ``A``, are clustered by the directions of
    both halves (k-means, started from ``seed``). ``(a, b)`` and ``(c a, b / c)`` are one unit: halves are given equal
    norms, and signs are fitted to the cluster. A cluster's part is the mean of its units. ``norm`` (``two`` or ``max``)
    brings the mean to the mean norm of its units; ``output`` multiplies the sum by ``sqrt(r / k)``, r the mean rank of
    the adapters. With ``k`` at the sum of the ranks or above, and neither, it is the plain sum of the adapters.
    Values: ``k`` and ``lambda``.
    """

    norm: Norm = "two"
    output: bool = True
    seed: int = 0

    parameters: ClassVar = (
        Parameter("k", 1.0, 64.0, 16.0, kind="integer", limits=(1.0, math.inf)),
        Parameter("lambda", 0.0, 1.5, 1.0),
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.seed < 0:
            raise RecipeError(f"seed of LoraLego is {self.seed}; it must be 0 or more")

    def merge(self, module: Module, values: Values) -> Factors | None:
        """The clusters' parts, one column and row each."""
        adapters = [one for one in module.factors if one is not None]
        parts, sizes = units(adapters)
        if not len(parts) or values.one("lambda") == 0.0:
            return None
        directions = parts / sizes[:, None]
        clusters = k_means(directions @ directions.T, round(values.one("k")), self.seed)
        means = clusters.means @ parts
        if self.norm != "none":
            means *= self._gains(clusters, parts, means)[:, None]
        gain = values.one("lambda")
        if self.output:
            gain *= math.sqrt(sum(one.rank for one in adapters) / len(adapters) / clusters.count)
        into = module.shape[1]
        return rounded(gain * means[:, into:].T, means[:, :into])

    def _gains(self, clusters: Clusters, parts: Doubles, means: Doubles) -> Doubles:
        """What brings each cluster's mean to the mean norm of its units, both halves together."""
        order = 2 if self.norm == "two" else np.inf
        wanted = abs(clusters.means) @ np.linalg.norm(parts, order, axis=1)
        found = np.linalg.norm(means, order, axis=1)
        gains: Doubles = np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0.0)
        return gains


def units(adapters: Sequence[Factors]) -> tuple[Doubles, Doubles]:
    """All units ``[a, b]`` of adapters but zero ones, with halves of equal norm, strongest first; and that norm.

    Their order does not depend on the order of ranks and adapters, so what is made of them does not, either.
    """
    a = np.concatenate([one.A.astype(np.float64) for one in adapters])
    b = np.concatenate([one.scale * one.B.T.astype(np.float64) for one in adapters])
    sizes = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    strength = sizes[0] * sizes[1]
    order = np.argsort(-strength, kind="stable")[: int((strength > 0.0).sum())]
    ratio = np.sqrt(sizes[1][order] / sizes[0][order])[:, None]
    return np.concatenate([a[order] * ratio, b[order] / ratio], axis=1), np.sqrt(strength[order])
