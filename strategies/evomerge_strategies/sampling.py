"""Where to sample a metric that is to be fitted, in the unit cube: evenly, or where the fit is worst.

The latter is Bayesian MAP (arXiv 2406.07529). Directions from the origin are bins. A bin's worth is the mean squared
error of the samples in it plus its standard deviation; a softmax chooses the bin, and the radius is drawn evenly. Bins
are those of Das-Dennis directions instead of angles, so that their number does not explode with the dimensions; one
without samples counts as the worst of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge_strategies.pareto import reference_directions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TEMPERATURE = 0.07
RADII = (0.2, 0.8)
BINS = 4  # for each dimension, at most
DRAWS = 64


def latin_hypercube(count: int, size: int, random: np.random.Generator) -> Floats:
    """Points (count, size): each coordinate's values fall one into each of ``count`` equal parts."""
    parts = random.permuted(np.tile(np.arange(count), (size, 1)), axis=1).T
    return np.asarray((parts + random.random((count, size))) / max(count, 1))


def most_uncertain(points: Floats, squared: Floats, count: int, random: np.random.Generator) -> Floats:
    """``count`` points (count, dimensions) in directions where ``squared`` errors (n,) at ``points`` are large."""
    directions = reference_directions(points.shape[1], BINS * points.shape[1])
    chance = _chances(_bin(points, directions), squared, len(directions))
    found = []
    for chosen in random.choice(len(directions), size=count, p=chance):
        drawn = random.dirichlet(np.ones(points.shape[1]), DRAWS)
        inside = drawn[_bin(drawn, directions) == chosen]
        direction = inside[0] if len(inside) else directions[chosen]
        found.append(random.uniform(*RADII) * direction / direction.max())
    return np.array(found).reshape(-1, points.shape[1])


def _bin(points: Floats, directions: Floats) -> Ints:
    """The direction that each point lies in; the origin lies in the first."""
    unit = directions / np.sqrt((directions**2).sum(axis=1, keepdims=True))
    return np.asarray(np.argmax((points[:, None, :] * unit[None]).sum(axis=2), axis=1))


def _chances(bins: Ints, squared: Floats, count: int) -> Floats:
    """How likely each bin is chosen."""
    worth = np.full(count, np.nan)
    for one in np.unique(bins):
        worth[one] = squared[bins == one].mean() + squared[bins == one].std()
    worst = np.nanmax(worth)
    worth = np.where(np.isnan(worth), worst, worth) / (worst if worst > 0.0 else 1.0)
    weights = np.exp((worth - worth.max()) / TEMPERATURE)
    return np.asarray(weights / weights.sum())
