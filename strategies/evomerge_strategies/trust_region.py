"""Gauss-Newton models from values alone, and the step that one allows: pure functions over unit-box coordinates.

A cross-entropy is ``softplus(z)`` of a margin z, by how much the other answers outweigh the right one, and margins are
far more nearly linear in the weights than losses are. So a model of every item's margin, straight while points are few
and bent as they become more, is a model of the mean loss with slopes and curvature (generalised Gauss-Newton,
Schraudolph 2002; from values alone as in Cartis and Roberts 2019). Any loss above zero has such a margin:
``z = log(exp(loss) - 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

BENT = 0.1
"""How much bent margins may be against straight ones (q in `Model`), before values say anything."""
_DOUBT = 0.1
"""By how much a quadratic may be wrong a radius away (a standard deviation); it grows with the distance's cube."""
_SWEEPS = 100
_EXPANSIONS = 8
_SMALLEST = 1e-7  # losses below are taken for this, lest their margins be minus infinity


@dataclass(frozen=True, slots=True)
class Model:
    """The mean loss around a centre, as a function of steps s in radii.

    ``mean_j softplus(z_j + sum_i k(s_i, s) a_ij) + sum_i k(s_i, s) c_i`` with the kernel of all quadratics without a
    constant, ``k(u, v) = u.v + q (u.v)^2 / 2``: of all quadratic margins the least bent ones that agree with the values
    at the ``points`` s_i, (m, n). ``margins`` z are (N,), ``weights`` a (m, N), and ``correction`` c (m,) is what the
    mean losses themselves add. Both s and s_i are in ``scale`` radii there.
    """

    points: Floats
    margins: Floats
    weights: Floats
    correction: Floats
    scale: float

    def value(self, step: Floats) -> float:
        """The mean loss there."""
        nearness = kernel(self.points, step[None] / self.scale)[:, 0]
        return float(np.logaddexp(0.0, self.margins + nearness @ self.weights).mean() + nearness @ self.correction)

    def expanded(self, step: Floats) -> tuple[Floats, Floats]:
        """Gradient (n,) and curvature (n, n) there; what is bent downwards counts as flat."""
        along = self.points @ (step / self.scale)
        margins = self.margins + (along + 0.5 * BENT * along**2) @ self.weights
        chances = 1.0 / (1.0 + np.exp(-np.clip(margins, -60.0, 60.0)))
        turned = self.points * (1.0 + BENT * along)[:, None]
        slopes = turned.T @ self.weights  # of each margin, (n, N)
        share = self.weights @ chances / chances.size + self.correction
        curvature = (slopes * (chances * (1.0 - chances) / chances.size)) @ slopes.T
        sizes, axes = np.linalg.eigh(curvature + BENT * (self.points.T * share) @ self.points)
        return turned.T @ share / self.scale, (axes * np.maximum(sizes, 0.0)) @ axes.T / self.scale**2


def kernel(one: Floats, other: Floats) -> Floats:
    """``u.v + q (u.v)^2 / 2`` of every u in one (m, n) with every v in the other (k, n): (m, k)."""
    product = one @ other.T
    return np.asarray(product + 0.5 * BENT * product**2)


def margins(losses: NDArray[np.generic]) -> Rows:
    """``log(exp(loss) - 1)`` of each loss, float32. What is not above zero counts as almost zero."""
    above = np.maximum(losses.astype(np.float64), _SMALLEST)
    return (above + np.log(-np.expm1(-above))).astype(np.float32)


def near(steps: Floats) -> NDArray[np.bool_]:
    """Which points (m, n), as steps in radii, take part in a model: the nearest, twice as many as a quadratic needs.

    And no more than six for each dimension, beyond which they cost more time than they are worth.
    """
    size = steps.shape[1]
    order = np.argsort(np.abs(steps).max(axis=1), kind="stable")
    chosen = np.zeros(len(steps), dtype=bool)
    chosen[order[: min((size + 1) * (size + 2), 6 * (size + 1))]] = True
    return chosen


def fit(steps: Floats, rows: Rows, values: Floats, centre: Rows) -> Model:
    """The model around the centre.

    Args:
        steps: (m, n), points as steps from the centre in radii; the centre itself is not among them.
        rows: (m, N), their margins.
        values: (m,), how far their mean losses lie above the centre's.
        centre: (N,), the centre's margins.
    """
    distances = np.abs(steps).max(axis=1)
    scale = max(1.0, float(np.sort(distances)[min(steps.shape[1], distances.size - 1)]))  # as far as n + 1 points are
    doubt = (_DOUBT * np.maximum(distances / scale, 0.1) ** 3) ** 2
    points, start = steps / scale, centre.astype(np.float64)
    nearness = kernel(points, points)
    solved = np.linalg.inv(nearness + np.diag(doubt))
    weights = np.asarray(solved @ (rows - centre).astype(np.float64), dtype=np.float64)
    predicted = np.logaddexp(0.0, start + nearness @ weights).mean(axis=1) - np.logaddexp(0.0, start).mean()
    correction = np.asarray(solved @ (values - predicted), dtype=np.float64)
    return Model(points, start, weights, correction, scale)


def descend(model: Model, low: Floats, high: Floats) -> tuple[Floats, float]:
    """The step within ``low`` to ``high`` (which hold zero) that the model likes best, and what it expects to gain."""
    step = np.zeros(low.size)
    start = value = model.value(step)
    for _ in range(_EXPANSIONS):
        gradient, curvature = model.expanded(step)
        move = _quadratic(gradient, curvature, low - step, high - step)
        for _ in range(_EXPANSIONS):
            if (there := model.value(step + move)) < value:
                break
            move *= 0.5
        else:
            break
        gained, step, value = value - there, step + move, there
        if gained <= 1e-4 * (start - value):
            break
    return np.clip(step, low, high), start - value


def _quadratic(gradient: Floats, curvature: Floats, low: Floats, high: Floats) -> Floats:
    """The minimum of ``g.s + s.H.s / 2`` in a box, by coordinate descent."""
    step, slope = np.zeros(gradient.size), gradient.copy()
    diagonal = np.diag(curvature)
    flat = diagonal <= 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300)
    for _ in range(_SWEEPS):
        moved = 0.0
        for i in range(step.size):
            if flat[i]:
                target = low[i] if slope[i] > 0 else high[i] if slope[i] < 0 else step[i]
            else:
                target = min(max(step[i] - slope[i] / diagonal[i], low[i]), high[i])
            if (by := target - step[i]) != 0.0:
                step[i] = target
                slope += by * curvature[i]
                moved = max(moved, abs(by))
        if moved < 1e-6:
            break
    return step


def missing_direction(steps: Floats, least: float = 0.1) -> Floats | None:
    """A unit direction that the points within a radius and a half say too little about, or None if there is none."""
    inside = steps[np.abs(steps).max(axis=1) <= 1.5]
    _, sizes, directions = np.linalg.svd(inside, full_matrices=True)
    found = np.zeros(steps.shape[1])
    found[: sizes.size] = sizes
    worst = int(np.argmin(found))
    return None if found[worst] >= least else np.asarray(directions[worst])
