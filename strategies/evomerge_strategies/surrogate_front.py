"""The front of cheap surrogates by NSGA-III, and which of its points to evaluate for real. All in the unit cube."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evomerge.pareto import front
from evomerge_strategies.pareto import nsga3_survivors, reference_directions
from evomerge_strategies.variation import Variation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def predicted_front(
    predict: Callable[[Floats], Floats], start: Floats, population: int, generations: int, random: np.random.Generator
) -> Floats:
    """Points (n, dimensions) that no other found dominates by their predicted gains.

    Args:
        predict: gains (n, objectives) of points (n, dimensions).
        start: points to begin from, beside as many random ones as the population has slots.
        population: survivors of a generation, and their children.
        generations: how many.
        random: the only source of chance.
    """
    size = start.shape[1]
    # as MAP's authors have it: 70 % of the pairs are crossed, one coordinate mutates
    low, high = np.zeros(size), np.ones(size)
    how = Variation(low, high, high - low, 0.7, 20.0, 1.0 / size, 20.0)
    points = np.concatenate([start, random.random((population, size))])
    gains = predict(points)
    directions = reference_directions(gains.shape[1], population)
    for _ in range(generations):
        kept = nsga3_survivors(gains, population, directions, gains.max(axis=0), random)
        mothers, fathers = random.integers(len(kept), size=(2, population // 2))
        children = how.children(points[kept[mothers]], points[kept[fathers]], random)
        points = np.concatenate([points[kept], children])
        gains = np.concatenate([gains[kept], predict(children)])
    return points[front(gains)]


def spread(predicted: Floats, measured: Floats, count: int) -> Ints:
    """Places of at most ``count`` predictions that are far from one another and from the front that was measured.

    Greedily the farthest first, each objective scaled by the range it has here. What the measured front dominates is
    passed over, unless that is all there is.
    """
    best = measured[front(measured)]
    beaten = (best[:, None, :] >= predicted[None, :, :]).all(axis=2).any(axis=0)
    places = np.flatnonzero(~beaten) if not beaten.all() else np.arange(len(predicted))
    both = np.concatenate([predicted[places], best])
    span = np.ptp(both, axis=0)
    scaled = both / np.where(span > 0.0, span, 1.0)
    candidates, others = scaled[: len(places)], scaled[len(places) :]
    alone = ((candidates[:, None, :] - others[None, :, :]) ** 2).sum(axis=2).min(axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(places))):
        at = int(np.argmax(alone))
        chosen.append(at)
        alone = np.minimum(alone, ((candidates - candidates[at]) ** 2).sum(axis=1))
        alone[at] = -1.0
    return places[chosen]
