"""Real-coded crossover and mutation of genetic algorithms: simulated binary crossover and polynomial mutation.

Bounds may be infinite. Sources: Deb and Agrawal, Complex Systems 9 (1995); Deb and Goyal, Computer Science and
Informatics 26 (1996); the bounded forms are those of Deb's own NSGA-II program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Variation:
    """How parents become children.

    ``low``, ``high`` are the bounds and ``span`` the width of the box, (dimensions,) each; ``crossover`` is the chance
    of a pair, ``mutation`` that of a coordinate; a larger ``eta`` keeps children nearer.
    """

    low: Floats
    high: Floats
    span: Floats
    crossover: float
    crossover_eta: float
    mutation: float
    mutation_eta: float

    def children(self, mothers: Floats, fathers: Floats, random: np.random.Generator) -> Floats:
        """Two children of each pair, (2 pairs, dimensions): the two of a pair follow one another."""
        crossed = random.random((len(mothers), 1)) < self.crossover
        first, second = _crossed(mothers, fathers, self, random)
        pairs = np.where(crossed, first, mothers), np.where(crossed, second, fathers)
        return _mutated(np.stack(pairs, axis=1).reshape(-1, mothers.shape[1]), self, random)


def _crossed(mothers: Floats, fathers: Floats, how: Variation, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Simulated binary crossover of half the coordinates: children lie about their parents as far as these do apart."""
    below, above = np.minimum(mothers, fathers), np.maximum(mothers, fathers)
    apart = above - below
    chance, draw, swap = (random.random(mothers.shape) for _ in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        near = 0.5 * (below + above - _spread(draw, 1.0 + 2.0 * (below - how.low) / apart, how) * apart)
        far = 0.5 * (below + above + _spread(draw, 1.0 + 2.0 * (how.high - above) / apart, how) * apart)
    crossed = (chance < 0.5) & (apart > 1e-14)
    near, far = (np.clip(child, how.low, how.high) for child in (near, far))
    first = np.where(crossed, np.where(swap < 0.5, near, far), mothers)
    second = np.where(crossed, np.where(swap < 0.5, far, near), fathers)
    return first, second


def _spread(draw: Floats, room: Floats, how: Variation) -> Floats:
    """The spread factor beta_q, whose largest value ``room`` keeps a child inside the bounds."""
    power = how.crossover_eta + 1.0
    alpha = 2.0 - room**-power
    return np.asarray(np.where(draw <= 1.0 / alpha, draw * alpha, 1.0 / (2.0 - draw * alpha)) ** (1.0 / power))


def _mutated(points: Floats, how: Variation, random: np.random.Generator) -> Floats:
    """Polynomial mutation: a step of at most the box's width, most often a small one."""
    power = how.mutation_eta + 1.0
    down = np.clip((points - how.low) / how.span, 0.0, 1.0)
    up = np.clip((how.high - points) / how.span, 0.0, 1.0)
    chance, draw = random.random(points.shape), random.random(points.shape)
    lower = (2.0 * draw + (1.0 - 2.0 * draw) * (1.0 - down) ** power) ** (1.0 / power) - 1.0
    upper = 1.0 - (2.0 * (1.0 - draw) + (2.0 * draw - 1.0) * (1.0 - up) ** power) ** (1.0 / power)
    step = np.where(draw < 0.5, lower, upper)
    return np.asarray(np.where(chance < how.mutation, np.clip(points + step * how.span, how.low, how.high), points))
