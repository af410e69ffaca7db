"""What strategies for several objectives share: which objectives, the front kept, reference directions, survivors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import StrategyError, nearest
from evomerge.pareto import crowding, ranks
from evomerge.strategy import Objective, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Front = tuple[tuple[int, tuple[float, ...]], ...]
"""(candidate number, gains): results that no other dominates, best on the first objective first."""


def chosen_objectives(problem: Problem, names: Sequence[str], strategy: str) -> tuple[Objective, ...]:
    """The study's objectives, or those that are named; the study's main one first.

    Raises:
        StrategyError: fewer than two, one that the study does not have, or not the main one.
    """
    known = [one.name for one in problem.objectives]
    for name in names:
        if name not in known:
            raise StrategyError(f"objectives: {name!r} is none; {nearest(name, known)}the study has {', '.join(known)}")
    if names and known[0] not in names:
        raise StrategyError(f"objectives: the study's main objective {known[0]!r} must be among them; add it")
    found = tuple(one for one in problem.objectives if not names or one.name in names)
    if len(found) < 2:
        raise StrategyError(
            f"{strategy} looks for compromises between objectives, but was given only {', '.join(known[:1])}; "
            "take a fitness with several, or a strategy for one such as cma"
        )
    return found


def enter_front(front: Front, number: int, gains: tuple[float, ...], size: int) -> Front:
    """The front with this result in it, unless one there is as good everywhere.

    Beyond ``size`` the most crowded result leaves, never the best on the first objective.
    """

    def as_good(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return all(a >= b for a, b in zip(one, other, strict=True))

    if any(as_good(old, gains) for _, old in front):
        return front
    kept = [(number, gains), *(entry for entry in front if not as_good(gains, entry[1]))]
    kept.sort(key=lambda entry: (*(-gain for gain in entry[1]), entry[0]))
    if len(kept) > size:
        distance = crowding(np.array([entry[1] for entry in kept]))
        del kept[1 + int(np.argmin(distance[1:]))]
    return tuple(kept)


# --- reference directions ---------------------------------------------------------------------------------------------


def das_dennis(objectives: int, divisions: int) -> Floats:
    """All points of the unit simplex whose coordinates are multiples of 1/divisions: C(M + p - 1, p) of (M,).

    Source: Das and Dennis, SIAM J. Optim. 8 (1998). Each is a way to set M - 1 bars between p stars.
    """
    bars = np.array(list(combinations(range(divisions + objectives - 1), objectives - 1)), dtype=np.int64)
    bars = bars.reshape(comb(divisions + objectives - 1, objectives - 1), objectives - 1)
    edges = np.pad(bars, ((0, 0), (1, 0)), constant_values=-1)
    edges = np.pad(edges, ((0, 0), (0, 1)), constant_values=divisions + objectives - 1)
    return np.asarray((np.diff(edges, axis=1) - 1) / divisions)


def reference_directions(objectives: int, most: int) -> Floats:
    """The finest Das-Dennis directions of which there are at most ``most``, but at least one for each objective.

    With fewer divisions than objectives none lies inside, so a second layer, shrunk by half towards the middle, joins
    where there is room. Source: Deb and Jain, IEEE Trans. Evol. Comput. 18 (2014), section V and fig. 4.
    """
    outer = _divisions(objectives, most)
    directions = das_dennis(objectives, max(outer, 1))
    inner = _divisions(objectives, most - len(directions))
    if outer >= objectives or inner < 1:
        return directions
    shrunk = (das_dennis(objectives, min(inner, outer)) + 1.0 / objectives) / 2.0
    return np.concatenate([directions, shrunk])


def _divisions(objectives: int, most: int) -> int:
    """The most divisions that give at most so many directions."""
    if objectives == 1:
        return 1  # there is only one direction
    divisions = 0
    while comb(objectives + divisions, divisions + 1) <= most:
        divisions += 1
    return divisions


# --- survivors --------------------------------------------------------------------------------------------------------


def nsga2_survivors(gains: Floats, count: int) -> Ints:
    """Places of the ``count`` best results: front by front, of the last one the least crowded first.

    Source: Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comput. 6 (2002), section III-C.
    """
    kept, last = _whole_fronts(ranks(gains), count)
    order = np.argsort(-crowding(gains[last]), kind="stable")
    return np.sort(np.concatenate([kept, last[order[: count - len(kept)]]]))


def nsga3_survivors(gains: Floats, count: int, directions: Floats, ideal: Floats, random: np.random.Generator) -> Ints:
    """Places of ``count`` results: front by front, of the last one those that serve lonely reference directions.

    ``ideal`` is the best gain seen in each objective. Source: Deb and Jain (2014), algorithms 1 to 4.
    """
    rank = ranks(gains)
    kept, last = _whole_fronts(rank, count)
    if len(kept) + len(last) <= count:
        return np.sort(np.concatenate([kept, last]))
    both = np.concatenate([kept, last])
    niche, distance = _associate(_normalised(ideal - gains[both], rank[both] == 0), directions)
    order = np.argsort(distance[len(kept) :], kind="stable") + len(kept)
    waiting = [order[niche[order] == direction].tolist() for direction in range(len(directions))]
    crowd = np.bincount(niche[: len(kept)], minlength=len(directions)).astype(np.float64)
    crowd[[not line for line in waiting]] = np.inf
    chosen: list[int] = []
    while len(kept) + len(chosen) < count:
        loneliest = np.flatnonzero(crowd == crowd.min())
        direction = int(loneliest[random.integers(len(loneliest))])
        line = waiting[direction]
        nearest_first = crowd[direction] == 0.0
        chosen.append(line.pop(0 if nearest_first else int(random.integers(len(line)))))
        crowd[direction] += 1.0 if line else np.inf
    return np.sort(np.concatenate([kept, both[chosen]]))


def _whole_fronts(rank: Ints, count: int) -> tuple[Ints, Ints]:
    """Places in the fronts that fit into ``count``, and in the one that does not (or in the last)."""
    at = np.sort(rank)[min(count, len(rank)) - 1] if len(rank) else 0
    return np.flatnonzero(rank < at), np.flatnonzero(rank == at)


def _normalised(costs: Floats, first: NDArray[np.bool_]) -> Floats:
    """Costs (>= 0, the ideal at 0) divided by where the plane through the extreme results cuts the axes.

    An extreme result costs little in all objectives but one (achievement scalarising function). Where they span no
    plane, or one that cuts an axis below 0, the worst of the ``first`` front is taken instead.
    """
    size = costs.shape[1]
    worst = costs[first].max(axis=0)
    scaled = costs / np.where(worst > 0.0, worst, 1.0)  # else an objective of large numbers would be its own extreme
    weights = np.where(np.eye(size) == 1.0, 1.0, 1e6)
    extreme = scaled[[int(np.argmin((scaled * row).max(axis=1))) for row in weights]]
    try:
        inverse = np.linalg.solve(extreme, np.ones(size))
    except np.linalg.LinAlgError:
        return scaled
    with np.errstate(divide="ignore"):
        intercepts = 1.0 / inverse
    usable = np.isfinite(intercepts).all() and (intercepts > 1e-9).all()
    return scaled / intercepts if usable else scaled


def _associate(costs: Floats, directions: Floats) -> tuple[Ints, Floats]:
    """The reference direction nearest to each result, and how far away it is (perpendicular distance)."""
    unit = directions / np.sqrt((directions**2).sum(axis=1, keepdims=True))
    along = (costs[:, None, :] * unit[None]).sum(axis=2)
    apart = np.sqrt(((costs[:, None, :] - along[:, :, None] * unit[None]) ** 2).sum(axis=2))
    niche = np.argmin(apart, axis=1)
    return niche.astype(np.int64), apart[np.arange(len(costs)), niche]
