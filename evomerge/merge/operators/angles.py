"""Sources as directions and lengths, from nothing but their inner products: what linear operators may know of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import LinearOperator, Stretch, Values

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

STRAIGHT = 1e-6
"""Sine of the angle up to which an arc is a line: the two differ by less than a rounding there, or are opposite."""
_NOISE = 1e-12
"""A squared length below this share of its surroundings is rounding: inner products are sums of large parts."""


@dataclass(frozen=True)
class Directions:
    """Vectors as unit vectors times lengths. A vector of zeros has length 0 and is at right angles to all."""

    norms: Vector
    cosines: Matrix

    @classmethod
    def of(cls, gram: Matrix) -> Directions:
        """Of the sources themselves, ``gram[i, j] = <theta_i, theta_j>``."""
        return cls._cleared(gram, np.full(len(gram), gram.diagonal().max(initial=0.0)))

    @classmethod
    def of_tasks(cls, gram: Matrix) -> Directions:
        """Of the task vectors ``tau_i = theta_i - theta_0``, one fewer than ``gram`` has rows.

        ``<tau_i, tau_j> = <theta_i, theta_j> - <theta_i, theta_0> - <theta_0, theta_j> + <theta_0, theta_0>``.
        """
        to_base = gram[1:, 0]
        inner = gram[1:, 1:] - to_base[:, None] - to_base[None, :] + gram[0, 0]
        return cls._cleared(inner, gram.diagonal()[1:] + gram[0, 0])

    @classmethod
    def _cleared(cls, inner: Matrix, scale: Vector) -> Directions:
        squares = inner.diagonal()
        norms = np.sqrt(np.where(squares > _NOISE * scale, squares, 0.0))
        lengths = np.where(norms > 0.0, norms, math.inf)
        cosines = np.clip(inner / lengths[:, None] / lengths[None, :], -1.0, 1.0)
        np.fill_diagonal(cosines, np.where(norms > 0.0, 1.0, 0.0))
        return cls(norms, cosines)

    def length(self, weights: Vector) -> float:
        """Of ``sum_i weights_i u_i``, u the unit vectors."""
        return math.sqrt(max(0.0, float((weights[:, None] * self.cosines * weights).sum())))

    def coefficients(self, weights: Vector) -> tuple[float, ...]:
        """Of ``sum_i weights_i u_i`` as a sum over the vectors themselves."""
        lengths = np.where(self.norms > 0.0, self.norms, math.inf)
        return tuple((weights / lengths).tolist())


@dataclass(frozen=True)
class Directional(LinearOperator):
    """A linear operator on the sources' directions, per tensor, per segment or on whole models (``scope``).

    Where it has a base (the first source), what it combines are the task vectors ``tau_i = theta_i - theta_0``.
    """

    scope: Literal["global", "per_segment", "per_tensor"] = "per_tensor"

    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def per_tensor(self) -> bool:
        """Whether each tensor has directions of its own."""
        return self.scope == "per_tensor"

    @abstractmethod
    def combine(self, values: Values, of: Directions) -> tuple[float, ...]:
        """One coefficient per vector."""

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """With a base ``theta_0 + sum_i c_i tau_i``, written as a sum over the models."""
        gram = stretch.gram("global" if self.scope == "global" else "per_segment")
        if not self.based:
            return self.combine(values, Directions.of(gram))
        found = self.combine(values, Directions.of_tasks(gram))
        return (1.0 - math.fsum(found), *found)
