"""Means on the sphere: interpolation along an arc, the normalised mean, and the Karcher mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.errors import RecipeError
from evomerge.merge.operators.angles import STRAIGHT, Directional, Directions, Vector
from evomerge.merge.operators.port import Parameter, Values

_CANCELLED = 1e-6
"""A sum of unit vectors shorter than this share of its weights has no direction that could be trusted."""
_POSITIVE = (0.0, math.inf)


@dataclass(frozen=True)
class NuSlerp(Directional):
    """Slerp between two models at any angle (mergekit's nuslerp), with ``t = w_2 / (w_1 + w_2)`` for its weights.

    ``[sin((1-t) W) A + sin(t W) B] / sin W``, W the angle between A and B; a line where ``sin W <= 1e-6``. A vector of
    zeros counts as being at a right angle. `nuslerp_axis` has an angle for each row or column. Value: one ``t``.
    """

    parameters: ClassVar = (Parameter("t", 0.0, 1.0, 0.5),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    ordered: ClassVar[bool] = True

    def combine(self, values: Values, of: Directions) -> tuple[float, ...]:
        """The weights of A and B; at ``t`` 0 and 1 exactly one of them alone."""
        t = values.one("t")
        omega = math.acos(of.cosines[0, 1])
        if math.sin(omega) <= STRAIGHT:
            return (1.0 - t, t)
        return (math.sin((1.0 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega))


@dataclass(frozen=True)
class TaskNuSlerp(NuSlerp):
    """`NuSlerp` between two task vectors; the first source is the base."""

    least: ClassVar[int] = 3
    most: ClassVar[int | None] = 3
    based: ClassVar[bool] = True


@dataclass(frozen=True)
class Nlerp(Directional):
    """The normalised mean: the direction of ``sum_i w_i u_i`` at the length ``sum_i w_i |theta_i|``.

    u are unit vectors. It is what mergekit's multislerp amounts to, whose steps in the tangent space cancel.
    ``normalize`` divides the weights by their sum. Where the unit vectors cancel it is the weighted sum. Values: one
    weight per source.
    """

    normalize: bool = True

    parameters: ClassVar = (Parameter("weight", 0.0, 1.0, 0.5, "source"),)

    def combine(self, values: Values, of: Directions) -> tuple[float, ...]:
        """``(sum_j w_j |theta_j|) w_i / (|theta_i| |sum_j w_j u_j|)``."""
        weights = np.array(values.each("weight"))
        if self.normalize:
            weights = shares(weights)
        length = of.length(weights)
        if length <= _CANCELLED * float(np.abs(weights).sum()):
            return tuple(weights.tolist())
        return of.coefficients(weights * (float((weights * of.norms).sum()) / length))


@dataclass(frozen=True)
class TaskNlerp(Nlerp):
    """`Nlerp` of task vectors; the first source is the base."""

    parameters: ClassVar = (Parameter("weight", 0.0, 1.0, 0.5, "expert"),)
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True


@dataclass(frozen=True)
class Karcher(Directional):
    """The point of the sphere with the least weighted sum of squared angles to all (Karcher 1977), at the mean length.

    ``sum_i a_i log_u(u_i) = 0``, found by steps along that very sum until it is shorter than ``tolerance``, ``rounds``
    at the most (mergekit: 1e-5 and 10). The length is ``sum_i a_i |theta_i|``; vectors of zeros shorten it and have no
    other say. Values: a weight per source, divided by their sum.
    """

    tolerance: float = 1e-10
    rounds: int = 100

    parameters: ClassVar = (Parameter("weight", 0.0, 1.0, 0.5, "source", limits=_POSITIVE),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance >= 0.0 or self.rounds < 0:
            raise RecipeError(f"karcher cannot end at tolerance {self.tolerance} after {self.rounds} rounds")

    def combine(self, values: Values, of: Directions) -> tuple[float, ...]:
        """The mean direction times the mean length."""
        weights = shares(np.array(values.each("weight")))
        mean = karcher_mean(of, weights * (of.norms > 0.0), self.tolerance, self.rounds)
        return of.coefficients(mean * float((weights * of.norms).sum()))


@dataclass(frozen=True)
class TaskKarcher(Karcher):
    """`Karcher` of task vectors; the first source is the base."""

    parameters: ClassVar = (Parameter("weight", 0.0, 1.0, 0.5, "expert", limits=_POSITIVE),)
    least: ClassVar[int] = 2
    based: ClassVar[bool] = True


def shares(weights: Vector) -> Vector:
    """The weights divided by their sum.

    Raises:
        RecipeError: it is zero.
    """
    total = math.fsum(weights)
    if abs(total) <= 1e-12 * float(np.abs(weights).sum()):
        raise RecipeError(f"the weights {tuple(weights.tolist())} sum to zero, so they have no shares")
    return weights / total


def karcher_mean(of: Directions, weights: Vector, tolerance: float, rounds: int) -> Vector:
    """The mean direction, as weights of the unit vectors. All iterates lie in their span."""
    mean = _unit(of, weights)
    for _ in range(rounds):
        step = logarithm(of, weights, mean)
        length = of.length(step)
        if length <= tolerance:
            break
        mean = _unit(of, math.cos(length) * mean + (math.sin(length) / length) * step)
    return mean


def logarithm(of: Directions, weights: Vector, mean: Vector) -> Vector:
    """``sum_i w_i log_u(u_i)`` at ``u = mean``, with ``log_u(x) = (phi / sin phi) (x - cos(phi) u)``."""
    total = float(weights.sum())
    cosines = np.clip((of.cosines * mean).sum(axis=1), -1.0, 1.0)
    angles = np.arccos(cosines)
    sines = np.sin(angles)
    # sin phi = 0: at the mean itself the limit is x - u; opposite to it no direction is the shortest, and none is taken
    stretch = np.where(cosines > 0.0, 1.0, 0.0)
    np.divide(angles, sines, out=stretch, where=sines > STRAIGHT)
    pull = weights * stretch / (total or 1.0)
    step: Vector = pull - float((pull * cosines).sum()) * mean
    return step


def _unit(of: Directions, weights: Vector) -> Vector:
    """Weights of a unit vector in that direction; where the sum cancels, of the heaviest vector alone."""
    length = of.length(weights)
    if length > _CANCELLED * float(np.abs(weights).sum()):
        return weights / length
    alone = np.zeros_like(weights)
    alone[int(np.argmax(weights))] = 1.0
    return alone
