"""Slopes without gradients: paired probes on common items, and their race by successive halving.

A probe moves one row of the weights a little towards one model, ``lambda' = (1 - eps) lambda + eps e_v``: a mixture
like any other. On the same items ``d_v = mean(loss' - loss) / eps`` estimates the slope, with standard error
``s.d.(loss' - loss) / (eps sqrt m)``. Rounds of the race are on 16, 32, 64, ... items, those of earlier rounds among
them; after each the worse half of the probes, by confidence bound, is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Race:
    """Where a race is. All arrays have the shape of the weights, (rows, V).

    Attributes:
        epsilon: length of a probe.
        left: which probes are still in it.
        items: on how many items the last round was.
        count: on how many each probe was evaluated.
        total: sum of its paired differences.
        square: sum of their squares.
    """

    epsilon: float
    left: Marks
    items: int
    count: Floats
    total: Floats
    square: Floats


def begin(weights: Floats, epsilon: float, face: Marks | None = None) -> Race:
    """A race of all probes (of a face) that lead away from the weights."""
    left = weights < 1.0
    nothing = np.zeros(weights.shape)
    return Race(epsilon, left if face is None else left & face, 0, nothing, nothing, nothing)


def places(race: Race) -> list[tuple[int, int]]:
    """Row and model of each probe that is still in the race."""
    return [(int(row), int(model)) for row, model in np.argwhere(race.left)]


def probe(weights: Floats, row: int, model: int, epsilon: float) -> Floats:
    """The weights, with one row moved by epsilon towards one model."""
    new = weights.copy()
    new[row] *= 1.0 - epsilon
    new[row, model] += epsilon
    return new


def note(race: Race, centre: Floats | None, losses: Sequence[Floats | None], items: int) -> Race:
    """The race after a round.

    Args:
        race: before it.
        centre: losses at the weights themselves, items of the round; ``None``: that evaluation failed.
        losses: likewise of the probes, in the order of `places`. Those that failed are out of the race.
        items: on how many items the probes were evaluated by now.
    """
    count, total, square, left = race.count.copy(), race.total.copy(), race.square.copy(), race.left.copy()
    for place, found in zip(places(race), losses, strict=True):
        if centre is None or found is None:
            left[place] = False
            continue
        difference = found - centre
        count[place] += difference.size
        total[place] += difference.sum()
        square[place] += np.square(difference).sum()
    return replace(race, left=left, items=items, count=count, total=total, square=square)


def slopes(race: Race, weights: Floats) -> tuple[Floats, Floats]:
    """Slopes and their standard errors; ``nan`` for probes that are out. Exactly 0 where all weight is already."""
    known = race.left & (race.count > 0)
    count = np.where(known, race.count, 1.0)
    mean = race.total / count
    variance = np.maximum(race.square / count - mean**2, 0.0) * count / np.maximum(count - 1.0, 1.0)
    error = np.where(race.count > 1, np.sqrt(variance / count), np.inf)
    found = np.where(known, mean / race.epsilon, np.nan)
    errors = np.where(known, error / race.epsilon, np.nan)
    return np.where(weights == 1.0, 0.0, found), np.where(weights == 1.0, 0.0, errors)


def halved(race: Race, weights: Floats, confidence: float, keep: int, worst: int | None) -> Race:
    """Without the worse half of each row's probes.

    Two things are raced for: the lowest slopes, by ``d - confidence SE``, of which ``keep`` stay in any case; and the
    highest among models that have weight, by ``d + confidence SE``, of which ``worst`` stay (``None``: all).
    """
    found, errors = slopes(race, weights)
    left = np.zeros_like(race.left)
    for row, mine in enumerate(race.left):
        models = np.flatnonzero(mine)
        lower = (found[row] - confidence * errors[row])[models]
        left[row, _first_half(models, lower, keep)] = True
        held = models[weights[row, models] > 0.0]
        upper = (found[row] + confidence * errors[row])[held]
        left[row, held if worst is None else _first_half(held, -upper, worst)] = True
    return replace(race, left=left)


def _first_half(models: NDArray[np.int64], ranks: Floats, keep: int) -> NDArray[np.int64]:
    """The better half of some models, lowest rank first, and at least ``keep`` of them."""
    half = -(-models.size // 2)
    return models[np.argsort(ranks, kind="stable")[: max(half, keep)]]
