"""Frank-Wolfe's linear oracle and steps on a product of simplices.

``weights`` are float64 of shape (rows, V): one point of the simplex over V models per parameter group, or one for the
whole model. ``slopes``, of the same shape, are ``d[g, v] = <gradient, theta_v - theta>`` over group g; ``nan`` where
there is none, so that nothing moves there. Steps are taken in all rows together.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.space.weights import on_simplex

Floats = NDArray[np.float64]
Direction = Literal["pairwise", "away", "frank_wolfe"]

FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.03)
"""Points of a line search, as fractions of the longest step."""


def vertices(slopes: Floats) -> NDArray[np.int64]:
    """The linear oracle ``argmin_v d[g, v]`` of each row; the first of equals, -1 where no slope is known."""
    lowest = np.where(np.isnan(slopes), np.inf, slopes)
    return np.where(np.isinf(lowest).all(axis=1), -1, lowest.argmin(axis=1))


def gap(slopes: Floats, weights: Floats, direction: Direction) -> tuple[float, list[tuple[int, int]]]:
    """How steeply the loss falls at most along the direction; at least ``loss - min loss`` if the loss is convex.

    The Frank-Wolfe gap ``sum_g -d_s``, or for the other directions the pairwise gap ``sum_g d_a - d_s``, which is not
    less: towards s nothing may be left to gain where leaving a still helps.

    Returns:
        The gap, and row and model of the slopes it is made of.
    """
    total, parts = 0.0, list[tuple[int, int]]()
    for row, s in enumerate(int(vertex) for vertex in vertices(slopes)):
        if s < 0:
            continue
        a = None if direction == "frank_wolfe" else _worst(weights[row], slopes[row])
        steepness = (0.0 if a is None else float(slopes[row, a])) - float(slopes[row, s])
        if steepness > 0.0:
            total += steepness
            parts += [(row, v) for v in (s, a) if v is not None]
    return total, parts


def moved(weights: Floats, slopes: Floats, direction: Direction, fraction: float) -> Floats:
    """The point at a ``fraction`` of the longest step along the direction.

    * ``frank_wolfe``: ``theta_s - theta``, towards the oracle's vertex s; longest step 1.
    * ``away`` (Guelat & Marcotte 1986): ``theta - theta_a`` from the worst vertex a that has weight, where that is
      steeper, ``-d_a < d_s``; longest step ``lambda_a / (1 - lambda_a)``.
    * ``pairwise`` (Lacoste-Julien & Jaggi, NeurIPS 2015): weight of a goes to s; longest step ``lambda_a``.

    The longest of the last two takes all weight from a. Rows along which nothing descends stay.
    """
    step = {"pairwise": _pairwise, "away": _away, "frank_wolfe": _towards}[direction]
    found = [
        _clean(step(row, d, int(s), fraction)) if s >= 0 else row
        for row, d, s in zip(weights, slopes, vertices(slopes), strict=True)
    ]
    return np.array(found)


def projected(weights: Floats, slopes: Floats, fraction: float) -> Floats:
    """A projected gradient step on the face of the models whose slope is known; others keep their weight.

    The longest step is ``2 / (max d - min d)``: between two models it goes from one all the way to the other.
    """
    found = weights.copy()
    for row, d in zip(found, slopes, strict=True):
        face = np.flatnonzero(~np.isnan(d))
        mass, spread = row[face].sum(), np.ptp(d[face]) if face.size else 0.0
        if mass > 0.0 and spread > 0.0:
            row[face] = mass * on_simplex(row[face] / mass - 2.0 * fraction / spread * d[face])
    return np.array([_clean(row) for row in found])


def best_face(weights: Floats, slopes: Floats, count: int) -> NDArray[np.bool_]:
    """In each row the ``count`` models of lowest slope, and those that have weight."""
    order = np.argsort(np.where(np.isnan(slopes), np.inf, slopes), axis=1, kind="stable")
    face = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(face, order[:, :count], True, axis=1)
    return np.asarray((face & ~np.isnan(slopes)) | (weights > 0.0))


def _towards(row: Floats, d: Floats, s: int, fraction: float) -> Floats:
    if not d[s] < 0.0:
        return row
    new = (1.0 - fraction) * row
    new[s] += fraction
    return new


def _away(row: Floats, d: Floats, s: int, fraction: float) -> Floats:
    a = _worst(row, d)
    if a is None or d[s] <= -d[a] or row[a] == 1.0:
        return _towards(row, d, s, fraction)
    new: Floats = (1.0 + fraction * row[a] / (1.0 - row[a])) * row
    new[a] = row[a] * (1.0 - fraction)
    return new


def _pairwise(row: Floats, d: Floats, s: int, fraction: float) -> Floats:
    a = _worst(row, d)
    if a is None:
        return _towards(row, d, s, fraction)
    new = row.copy()
    if d[s] < d[a]:
        new[s] += fraction * row[a]
        new[a] -= fraction * row[a]
    return new


def _worst(row: Floats, d: Floats) -> int | None:
    """``argmax_v d[v]`` among the models that have weight; the first of equals."""
    highest = np.where((row > 0.0) & ~np.isnan(d), d, -np.inf)
    a = int(highest.argmax())
    return None if np.isinf(highest[a]) else a


def _clean(row: Floats) -> Floats:
    """Rounding takes no row off the simplex."""
    row = np.maximum(row, 0.0)
    return np.asarray(row / row.sum())
