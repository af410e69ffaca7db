"""k-means over lines rather than points: a vector and its negative are the same, and a cluster fits their signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.adapters.factors import Doubles

_ROUNDS = 100
_NEAR = 1e-12
"""Squared distances below this share of a vector's own square are rounding."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which of n vectors belong together: ``means`` (clusters, n) times the vectors is each cluster's mean."""

    means: Doubles

    @property
    def count(self) -> int:
        """How many there are; none is empty."""
        return len(self.means)


def k_means(gram: Doubles, k: int, seed: int) -> Clusters:
    """At most ``k`` clusters of n vectors, given their inner products (n x n); with ``k >= n`` each is its own.

    Starts from the first vector and others drawn from ``seed`` with chances as their squared distances from those
    (k-means++, Arthur and Vassilvitskii 2007), and runs Lloyd's rounds until nothing moves. There may be fewer
    than ``k`` clusters where vectors are equal.
    """
    if k >= len(gram):
        return Clusters(np.eye(len(gram)))
    means = np.eye(len(gram))[_starts(gram, k, seed)]
    labels = np.full(len(gram), -1)
    for _ in range(_ROUNDS):
        near = gram @ means.T
        squares = (means * near.T).sum(axis=1)
        moved = np.argmin(squares - 2.0 * np.abs(near), axis=1)
        if np.array_equal(moved, labels):
            break
        turned = near[np.arange(len(gram)), moved] < 0.0
        labels = np.unique(moved, return_inverse=True)[1]
        means = _means(labels, np.where(turned, -1.0, 1.0))
    return Clusters(means)


def _means(labels: NDArray[np.intp], signs: Doubles) -> Doubles:
    """Every cluster's mean, of vectors turned to its side."""
    members = labels == np.arange(labels.max() + 1)[:, None]
    means: Doubles = members * signs / members.sum(axis=1, keepdims=True)
    return means


def _starts(gram: Doubles, k: int, seed: int) -> list[int]:
    """Up to ``k`` vectors that are no multiples of one another."""
    draw = np.random.default_rng(seed)
    own = np.diag(gram)
    chosen = [0]
    far = np.full(len(gram), np.inf)
    while len(chosen) < k:
        last = chosen[-1]
        far = np.minimum(far, own + own[last] - 2.0 * np.abs(gram[last]))
        far[far <= _NEAR * own] = 0.0
        sums = np.cumsum(far)
        if not sums[-1] > 0.0:
            break
        chosen.append(int(np.searchsorted(sums, draw.random() * sums[-1], side="right")))
    return chosen
