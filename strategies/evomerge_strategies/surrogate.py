"""Quadratic surrogates: a metric as ``link(e + b.c + c.A.c / 2)`` of merge coefficients c, fitted by least squares.

Source: MAP, arXiv 2406.07529. The error that counts is that of the metric, not of what stands
under the link, so a link is fitted by Levenberg and Marquardt's method from the fit of the inverse link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge_strategies.threads import one_thread

Floats = NDArray[np.float64]
Link = Literal["identity", "sigmoid", "softplus"]

STEPS = 60
NEAR = 1e-3  # how close to the end of its range a value is taken to be where the link's inverse would be infinite


def unknowns(dimensions: int) -> int:
    """Coefficients of a quadratic of so many variables."""
    return (dimensions + 1) * (dimensions + 2) // 2


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fitted metric.

    Attributes:
        link: its link function.
        weights: (unknowns,) coefficients of 1, the coordinates, and their products in the order of `np.triu_indices`.
        r2: share of the samples' variance that it explains.
        left_out: (samples,) what each sample differs from the prediction of a fit without it (linearised).
    """

    link: Link
    weights: Floats
    r2: float
    left_out: Floats

    def __call__(self, points: Floats) -> Floats:
        """The metric at points (n, dimensions), (n,)."""
        with one_thread():
            return _LINKS[self.link].value(_features(points) @ self.weights)

    @property
    def error(self) -> float:
        """Root of the mean squared leave-one-out error, in the metric's units."""
        return float(np.sqrt((self.left_out**2).mean()))


def fit(points: Floats, values: Floats, link: Link | Literal["auto"] = "auto") -> Surrogate:
    """The surrogate of ``values`` (n,) at ``points`` (n, dimensions), for n >= `unknowns`.

    ``auto`` takes the link that predicts left-out samples best, of those that the values' range allows: identity, a
    softplus where none is negative (losses), a sigmoid where all lie in [0, 1] (accuracies).
    """
    with one_thread():
        found = [_fitted(_features(points), values, one) for one in (_allowed(values) if link == "auto" else (link,))]
    return min(found, key=lambda one: one.error)


def _allowed(values: Floats) -> tuple[Link, ...]:
    """Links whose range has all of the values."""
    if (values < 0.0).any():
        return ("identity",)
    return ("identity", "softplus") if (values > 1.0).any() else ("identity", "softplus", "sigmoid")


def _features(points: Floats) -> Floats:
    """1, the coordinates, and their products, (n, unknowns)."""
    rows, columns = np.triu_indices(points.shape[1])
    return np.concatenate([np.ones((len(points), 1)), points, points[:, rows] * points[:, columns]], axis=1)


def _fitted(features: Floats, values: Floats, link: Link) -> Surrogate:
    how = _LINKS[link]
    weights: Floats = np.linalg.lstsq(features, how.inverse(values), rcond=None)[0].astype(np.float64)
    if link != "identity":
        weights = _refined(features, values, weights, how)
    under = features @ weights
    residual = values - how.value(under)
    total = float(((values - values.mean()) ** 2).sum())
    r2 = 1.0 - float((residual**2).sum()) / total if total > 0.0 else 1.0
    spare = 1.0 - _leverage(how.slope(under)[:, None] * features)
    return Surrogate(link, weights, r2, np.asarray(residual / np.maximum(spare, 1e-6)))


def _leverage(jacobian: Floats) -> Floats:
    """How far each sample pulls its own prediction, 0 to 1."""
    u, scale, _ = np.linalg.svd(jacobian, full_matrices=False)
    return np.asarray((u[:, scale > 1e-10 * max(scale[0], 1e-300)] ** 2).sum(axis=1))


def _refined(features: Floats, values: Floats, weights: Floats, how: _LinkFunction) -> Floats:
    """Levenberg-Marquardt steps on the metric itself, each of which lowers the squared error."""

    def squared(at: Floats) -> float:
        return float(((how.value(features @ at) - values) ** 2).sum())

    damping, best = 1e-6, squared(weights)
    for _ in range(STEPS):
        under = features @ weights
        jacobian = how.slope(under)[:, None] * features
        padded = np.concatenate([jacobian, np.sqrt(damping) * np.eye(len(weights))])
        wanted = np.concatenate([values - how.value(under), np.zeros(len(weights))])
        trial = weights + np.linalg.lstsq(padded, wanted, rcond=None)[0]
        if (found := squared(trial)) < best:
            gained, weights, best, damping = best - found, trial, found, damping / 10.0
            if gained <= 1e-14 * best:
                break
        elif (damping := damping * 10.0) > 1e6:
            break
    return weights


# --- several objectives ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Surrogates:
    """A surrogate for each objective; ``signs`` (objectives,) turn gains into the objectives' own values and back."""

    each: tuple[Surrogate, ...]
    signs: Floats

    def __call__(self, points: Floats) -> Floats:
        """Predicted gains (n, objectives)."""
        return np.asarray(np.stack([one(points) for one in self.each], axis=1) * self.signs)


def fit_all(points: Floats, gains: Floats, signs: Floats, link: Link | Literal["auto"] = "auto") -> Surrogates:
    """Surrogates of results (n, objectives) at ``points`` (n, dimensions); failures are left out."""
    scored = np.isfinite(gains).all(axis=1)
    return Surrogates(tuple(fit(points[scored], values, link) for values in (gains[scored] * signs).T), signs)


# --- links ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LinkFunction:
    """A link, its slope and its inverse, element by element."""

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    inverse: Callable[[Floats], Floats]


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # does not overflow


def _softplus(x: Floats) -> Floats:
    return np.asarray(np.logaddexp(0.0, x))


def _logit(y: Floats) -> Floats:
    inside = np.clip(y, NEAR, 1.0 - NEAR)
    return np.asarray(np.log(inside / (1.0 - inside)))


def _unplus(y: Floats) -> Floats:
    above = np.maximum(y, NEAR)
    return np.asarray(above + np.log(-np.expm1(-above)))  # log(exp(y) - 1)


_LINKS: dict[Link, _LinkFunction] = {
    "identity": _LinkFunction(lambda x: x, np.ones_like, lambda y: y),
    "sigmoid": _LinkFunction(_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x), _logit),
    "softplus": _LinkFunction(_softplus, _sigmoid, _unplus),
}
