"""Model Stock: how far to go from the base to the mean of the experts, from the angle between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from evomerge.merge.operators.angles import Directional, Directions
from evomerge.merge.operators.lines import Coefficients, LineOperator, Products, cosine
from evomerge.merge.operators.port import Parameter, Values

_GAIN = Parameter("gain", 0.5, 1.5, 1.0)


@dataclass(frozen=True)
class ModelStock(Directional):
    """``theta_0 + gain g mean_i(tau_i)``, ``g = N c / (1 + (N - 1) c)`` (Jang et al. 2024).

    c is the mean cosine between two task vectors, at least 0: the formula has a pole at ``c = -1 / (N - 1)``, beside
    which g is negative without limit. Task vectors at right angles give the base, equal ones the expert. The first
    source is the base. Value: one ``gain``.
    """

    parameters: ClassVar = (_GAIN,)
    least: ClassVar[int] = 3
    based: ClassVar[bool] = True

    def combine(self, values: Values, of: Directions) -> tuple[float, ...]:
        """The same for every expert."""
        count = len(of.norms)
        pairs = [of.cosines[pair] for pair in combinations(range(count), 2)]
        share = values.one("gain") * float(ratio(np.mean(pairs), count)) / count
        return (share,) * count


@dataclass(frozen=True)
class ModelStockRows(LineOperator):
    """`ModelStock` of each row by itself (mergekit's ``filter_wise``). Value: one ``gain``."""

    parameters: ClassVar = (_GAIN,)
    least: ClassVar[int] = 3
    based: ClassVar[bool] = True

    def combine(self, values: Values, products: Products) -> Coefficients:
        """The same for every expert, row by row."""
        count = len(products)
        pairs = [cosine(products, *pair) for pair in combinations(range(count), 2)]
        shares = values.one("gain") * ratio(np.mean(pairs, axis=0), count) / count
        return np.repeat(shares[None], count, axis=0)


def ratio(cosines: Any, count: int) -> Any:
    """``N c / (1 + (N - 1) c)``, how far towards the mean of N experts, with c taken as 0 where it is negative."""
    cosines = np.maximum(cosines, 0.0)
    return count * cosines / (1.0 + (count - 1) * cosines)
