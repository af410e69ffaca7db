"""pycma (Hansen, Akimoto, Baudis) made exactly repeatable: the same told losses give the same proposals, bit for bit.

Its object is never saved. Its normal draws come from our named streams, one stream per call, and a fresh object that is
told the same generations continues as the old one would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.streams import stream
from evomerge_strategies.restarts import AtStop, Run, following

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Search:
    """What is searched, and how. Vectors have one number per dimension; evaluations are minimised.

    Attributes:
        seed: with ``name`` decides all draws.
        name: of its random streams.
        start: the first run's mean.
        low: the box's lower corner.
        high: its upper corner. Later runs begin at a random point of the box.
        sigma: first step size, along the longest side of the box; shorter along shorter sides, in proportion.
        popsize: the first run's candidates in a generation; ``None``: 4 + floor(3 ln n).
        bounded: keep proposals inside the box (pycma's smooth transformation at its edges).
        integers: dimensions of whole numbers. pycma rounds them and keeps their steps from vanishing below one.
        diagonal: learn variances only (separable CMA-ES).
        active: learn from the worst candidates too, by negative weights.
        repaired: `Engine.tell` will be given vectors. Then pycma must mirror no samples, as it does where there are
            fewer than 6, because it looks for them among what it is told.
        at_stop: what to do when pycma sees no more progress.
    """

    seed: int
    name: str
    start: Floats
    low: Floats
    high: Floats
    sigma: float
    popsize: int | None = None
    bounded: bool = True
    integers: tuple[int, ...] = ()
    diagonal: bool = False
    active: bool = True
    repaired: bool = False
    at_stop: AtStop = "go_on"

    @property
    def size(self) -> int:
        """Number of dimensions, n."""
        return len(self.start)


@dataclass
class _Normal:
    """pycma's ``randn``: call k of run r draws from stream (seed, k, "name:r"). A class, so that it can be compared."""

    seed: int
    name: str
    calls: int = 0

    def __call__(self, *shape: int) -> Any:
        self.calls += 1
        return stream(self.seed, self.calls, self.name).standard_normal(shape)


class Engine:
    """Asks pycma, run after run. ``proposals`` is the next generation; empty when ``finished`` says why."""

    def __init__(self, search: Search) -> None:
        self._of = search
        self.proposals: list[Floats] = []
        self.finished: str | None = None
        self._over: list[tuple[Run, int]] = []
        self._begin(Run(search.popsize or 4 + math.floor(3 * math.log(search.size))))

    def tell(self, losses: Floats, vectors: Sequence[Floats] | None = None) -> None:
        """Move on by one generation.

        Args:
            losses: one per proposal; those that are not finite rank behind all others.
            vectors: what was really evaluated, where that is not what was proposed.
        """
        finite = losses[np.isfinite(losses)]
        worst = finite.max() + 1.0 if finite.size else 0.0
        told = np.where(np.isfinite(losses), losses, worst).tolist()
        self._optimizer.tell(self.proposals if vectors is None else list(vectors), told)
        self._spent += len(told)
        reasons = {} if self._of.at_stop == "go_on" else self._optimizer.stop()
        if not reasons and self._spent < self._run.limit:
            self.proposals = self._optimizer.ask()
        elif self._of.at_stop == "finish":
            found = ", ".join(f"{name} {value:g}" for name, value in sorted(reasons.items()))
            self.proposals, self.finished = [], f"pycma sees no more progress ({found})"
        else:
            self._over.append((self._run, self._spent))
            self._begin(following(self._of.at_stop, self._over, self._random("restart")))

    def diagnostics(self) -> dict[str, float]:
        """Step size, axis ratio of the covariance matrix, population, and how many runs were begun."""
        optimizer = self._optimizer
        return {
            "sigma": float(optimizer.sigma),
            "axis_ratio": float(optimizer.D.max() / optimizer.D.min()),
            "popsize": float(self._run.popsize),
            "runs": len(self._over) + 1.0,
        }

    def _random(self, what: str) -> np.random.Generator:
        return stream(self._of.seed, len(self._over), f"{self._of.name}:{what}")

    def _begin(self, run: Run) -> None:
        """The first run begins at the start, later ones at a random point of the box."""
        from cma import CMAEvolutionStrategy

        of, self._run, self._spent = self._of, run, 0
        start = self._random("start").uniform(of.low, of.high) if self._over else of.start
        if of.bounded:
            start = np.clip(start, of.low, of.high)
        self._optimizer = CMAEvolutionStrategy(start, of.sigma * run.sigma, self._options(run))
        self.proposals = self._optimizer.ask()

    def _options(self, run: Run) -> dict[str, Any]:
        of = self._of
        spans = of.high - of.low
        mirrors = {"CMA_mirrors": 0} if of.repaired else {}
        return {
            **mirrors,
            "popsize": run.popsize,
            "bounds": [of.low, of.high] if of.bounded else None,
            "CMA_stds": None if (spans == spans[0]).all() else spans / spans.max(),
            "integer_variables": list(of.integers),
            "CMA_diagonal": of.diagonal,
            "CMA_active": of.active,
            "randn": _Normal(of.seed, f"{of.name}:{len(self._over)}"),
            "seed": math.nan,  # do not touch numpy's global generator
            "tolflatfitness": 20,  # a plateau of equal scores is common with few items
            "tolfun": 0,
            "tolfunhist": 0,
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
            "signals_filename": "",  # never read options from a file
        }
