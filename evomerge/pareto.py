"""Several objectives at once: who dominates whom, how crowded a front is, and what volume it covers.

All functions take *gains*: float64 of shape (n, objectives), finite, larger is better (`Objective.gain` turns them).
One result dominates another if it is nowhere worse and somewhere better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def dominance(gains: Floats) -> NDArray[np.bool_]:
    """Who dominates whom, (n, n): the row dominates the column."""
    no_worse = (gains[:, None, :] >= gains[None, :, :]).all(axis=2)
    return np.asarray(no_worse & ~no_worse.T)


def front(gains: Floats) -> Ints:
    """Places of the results that no other dominates, ascending; of equal ones the first."""
    kept: list[int] = []
    for place in np.lexsort(-gains.T[::-1]):  # best first, so that nothing comes after what it dominates
        if not (gains[kept] >= gains[place]).all(axis=1).any():
            kept.append(int(place))
    return np.array(sorted(kept), dtype=np.int64)


def ranks(gains: Floats) -> Ints:
    """The non-dominated front each result is in: 0 for the first, 1 for the first of what is left, and so on.

    Source: Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comput. 6 (2002), section III-A.
    """
    beats = dominance(gains)
    beaten_by = beats.sum(axis=0)
    found = np.full(len(gains), -1, dtype=np.int64)
    rank = 0
    while (left := found < 0).any():
        layer = left & (beaten_by == 0)
        found[layer] = rank
        beaten_by = beaten_by - beats[layer].sum(axis=0)
        rank += 1
    return found


def crowding(gains: Floats) -> Floats:
    """Crowding distance of each result within one front: the summed relative distance of its neighbours.

    The best and the worst in any objective are infinitely far from others. Source: as `ranks`, section III-B.
    """
    distance = np.zeros(len(gains))
    for column in gains.T:
        order = np.argsort(column, kind="stable")
        span = float(column[order[-1]] - column[order[0]]) if len(order) else 0.0
        if span == 0.0:
            continue
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
        distance[order[[0, -1]]] = np.inf
    return distance


def hypervolume(gains: Floats, reference: Floats) -> float:
    """The volume of all that lies between ``reference`` (objectives,) and some result; exact.

    A result that is not better than the reference in every objective adds nothing. The cost grows steeply with the
    number of objectives: some milliseconds for a front of 100 with 2 or 3 of them.
    """
    inside = gains - reference
    inside = inside[(inside > 0.0).all(axis=1)]
    return _volume(inside[front(inside)])


def _volume(points: Floats) -> float:
    """The volume of boxes from 0 to each of mutually non-dominated ``points`` > 0.

    A sum of exclusive volumes, lowest last coordinate first (While, Bradstreet, Barone, IEEE Trans. Evol. Comput. 16
    (2012)): the part that a box shares with those after it ends at its own last coordinate, so that this part
    has one dimension less.
    """
    size = points.shape[1]
    if len(points) == 0:
        return 0.0
    if size == 1:
        return float(points.max())
    points = points[np.argsort(points[:, -1], kind="stable")]
    if size == 2:  # x falls as y rises: a staircase
        steps = np.diff(points[:, 1], prepend=0.0)
        return float((steps * points[:, 0]).sum())
    total = 0.0
    for place, point in enumerate(points):
        shared = np.minimum(points[place + 1 :, :-1], point[:-1])
        total += float(point[-1]) * (float(np.prod(point[:-1])) - _volume(shared[front(shared)]))
    return total
