"""Gauss-Newton models from values alone, and the step that one allows: pure functions over unit-box coordinates.

Every evaluation gives one residual per item, so that a linear model of all residuals, from little more than n + 1
points, has curvature, too: ``f(x + s) ~ f(x) + g.s + s.H.s / 2`` with ``H = J'J / N`` (Cartis and Roberts, "A
derivative-free Gauss-Newton method", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

_RIDGE = 1e-9
_REACH = 3.0
"""Points so many radii away still take part in a model, the less the farther."""
_SWEEPS = 200


@dataclass(frozen=True, slots=True)
class Model:
    """``change(s) = g.s + s.H.s / 2`` of the mean loss, s in radii."""

    gradient: Floats
    curvature: Floats

    def change(self, step: Floats) -> float:
        """How the mean loss is expected to change."""
        return float(self.gradient @ step + 0.5 * step @ self.curvature @ step)


def residuals(losses: NDArray[np.generic]) -> Rows:
    """``sqrt(2 loss)``, so that half the mean square is the mean loss. Losses below zero count as zero."""
    return np.sqrt(2.0 * np.maximum(losses.astype(np.float64), 0.0)).astype(np.float32)


def near(steps: Floats) -> NDArray[np.bool_]:
    """Which points (m, n), as steps in radii, take part in a model.

    The nearest n + 1 in any case, and others in reach, up to 3 (n + 1) in all.
    """
    distances = np.abs(steps).max(axis=1)
    order, enough = np.argsort(distances, kind="stable"), steps.shape[1] + 1
    chosen = np.zeros(distances.size, dtype=bool)
    chosen[order[:enough]] = True
    chosen[order[enough : 3 * enough]] = distances[order[enough : 3 * enough]] <= _REACH
    return chosen


def fit(steps: Floats, rows: Rows, values: Floats, centre: Rows, value: float) -> Model:
    """The model around the centre.

    Args:
        steps: (m, n), points as steps from the centre in radii; the centre itself is not among them.
        rows: (m, N), their residuals.
        values: (m,), their mean losses.
        centre: (N,), the centre's residuals.
        value: the centre's mean loss.
    """
    weights = 1.0 / np.maximum(1.0, np.abs(steps).max(axis=1)) ** 2
    weighted = steps * weights[:, None]
    normal = steps.T @ weighted
    normal += _RIDGE * max(float(np.trace(normal)), 1e-12) * np.eye(steps.shape[1])
    jacobian = np.linalg.solve(normal, weighted.T @ (rows - centre).astype(np.float64))  # (n, N)
    curvature = jacobian @ jacobian.T / centre.size
    gradient = jacobian @ centre.astype(np.float64) / centre.size
    # the mean losses themselves know the slope better than linear residuals do
    missed = values - value - 0.5 * np.einsum("mi,ij,mj->m", steps, curvature, steps) - steps @ gradient
    return Model(gradient + np.linalg.solve(normal, weighted.T @ missed), curvature)


def descend(model: Model, low: Floats, high: Floats) -> Floats:
    """The step within ``low`` to ``high`` (which hold zero) that the model likes best, by coordinate descent."""
    step = np.zeros(model.gradient.size)
    slope = model.gradient.copy()
    diagonal = np.diag(model.curvature)
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
                slope += by * model.curvature[i]
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
