"""MAP: one set of evaluations, then the whole front of compromises from quadratic surrogates, verified.

Each objective is fitted as a quadratic of the merge coefficients (`surrogate`) from (n + 1)(n + 2) samples: the pool's
members and points that fill the box. NSGA-III then finds the surrogates' front inside that box, points spread over it
are evaluated for real, and with those the surrogates are fitted again, round after round.
Source: Li et al., "MAP: Low-compute Model Merging with Amortized Pareto Fronts via Quadratic Approximation", ICLR 2025,
arXiv 2406.07529; that the front stays in the sampled box and is verified in rounds is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, require_members
from evomerge.streams import stream
from evomerge_strategies.adaptive import most_uncertain
from evomerge_strategies.batches import Batch, Batches, BatchesState, Results, joined
from evomerge_strategies.pareto import Front, chosen_objectives
from evomerge_strategies.surrogate import Surrogate, fit, unknowns
from evomerge_strategies.surrogate_front import predicted_front, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MAPSettings:
    """MAP's settings.

    Attributes:
        space: what the coefficients are: a box of a few dimensions, the cost grows with their square.
        objectives: names of the study's objectives, the main one among them; default: all.
        samples: evaluations before the first fit, the members' included; default: (n + 1)(n + 2) for n dimensions.
        sampling: `space_filling` spreads them evenly; `adaptive` takes the later ones where the fit is worst (Bayesian
            MAP), worth it in many dimensions.
        link: what stands between quadratic and objective; `auto`: what predicts left-out samples best.
        verify: points of the surrogates' front evaluated in each round.
        rounds: rounds of verification; default: until the budget is spent.
        surrogate_population: size of NSGA-III's population on the surrogates.
        surrogate_generations: its generations.
        front: how many results that no other dominates are remembered as finalists.
    """

    space: AnySpace = field(default_factory=lambda: WeightSpace("task_arithmetic", per_group=False))
    objectives: tuple[str, ...] = ()
    samples: Annotated[int, Gt(2)] | None = None
    sampling: Literal["space_filling", "adaptive"] = "space_filling"
    link: Literal["auto", "identity", "sigmoid", "softplus"] = "auto"
    verify: Annotated[int, Gt(0)] = 5
    rounds: Annotated[int, Gt(0)] | None = None
    surrogate_population: Annotated[int, Gt(3)] = 100
    surrogate_generations: Annotated[int, Gt(0)] = 50
    front: Annotated[int, Gt(0)] = 100


class MAP(Batches):
    """See the module's docstring. Samples are generation 0, round r of verification is generation r."""

    Settings = MAPSettings

    def __init__(self, settings: MAPSettings, problem: Problem) -> None:
        require_members(problem, 1, "MAP")
        space = settings.space
        space.check(problem)
        if isinstance(space, WeightSpace) and space.kind == "simplex":
            raise StrategyError("MAP samples a box, and a simplex is none; take space.kind linear or task_arithmetic")
        super().__init__(problem, space, chosen_objectives(problem, settings.objectives, "MAP"), settings.front)
        least = unknowns(self._size)
        self._samples = settings.samples or 2 * least
        if self._samples < least + 1:
            raise StrategyError(
                f"samples: {self._samples} cannot determine a quadratic of {self._size} coefficients; take at least "
                f"{least + 1}, or a smaller space such as {{per_group: false}}"
            )
        self._s, self._least = settings, least
        self._low, self._high = space.box(problem)
        self._signs = np.array([one.gain(1.0) for one in self._objectives])
        self._fits: tuple[Results, tuple[Surrogate, ...]] | None = None  # rebuilt from any state

    def propose(self, kept: Results, closed: int, first: int) -> Batch:
        """Samples as long as they are too few, then points of the surrogates' front."""
        random = stream(self._problem.seed, first, "map")
        scored, asked = np.isfinite(kept.gains).all(axis=1).sum(), len(kept.numbers)
        adaptive = self._s.sampling == "adaptive"
        if closed == 0:
            seeds = self.seeds()
            size = self._least + self._size if adaptive else self._samples
            drawn = self._drawn(size - np.isfinite(seeds.points).all(axis=1).sum(), random)
            return joined(seeds, self._batch_of(drawn, "sample"))
        if scored <= self._least:
            return self._batch_of(self._drawn(self._least + 1 - scored, random), "sample")
        if asked < self._samples:
            return self._batch_of(self._uncertain(kept, min(self._samples - asked, self._size + 1), random), "residual")
        done = int(kept.generations.max())
        if self._s.rounds is not None and done >= self._s.rounds:
            return self._batch_of(kept.points[:0], "front")
        points = self._to_verify(kept, random)
        if not len(points):  # the whole predicted front is known: other samples may change it
            return self._batch_of(self._drawn(self._s.verify, random), "sample", done)
        return self._batch_of(points, "front", done + 1)

    def _batch_of(self, points: Floats, origin: str, generation: int = 0) -> Batch:
        recipes = tuple(self._space.decode(self._problem, x) for x in points)
        count = len(recipes)
        return Batch(recipes, points, (origin,) * count, ((),) * count, (generation,) * count)

    def keep(self, results: Results, front: Front, closed: int) -> Ints:
        """All, failures too: none is tried again."""
        return np.arange(len(results.numbers))

    def finished(self) -> str:
        """All rounds are done."""
        return f"all {self._s.rounds} rounds are verified"

    # --- samples ----------------------------------------------------------------------------------------------

    def _unit(self, points: Floats) -> Floats:
        """Points of the box as points of the unit cube."""
        return (points - self._low) / (self._high - self._low)

    def _drawn(self, count: int, random: np.random.Generator) -> Floats:
        """A Latin hypercube: each coordinate's values fall one into each of ``count`` equal parts."""
        count = max(int(count), 0)
        parts = random.permuted(np.tile(np.arange(count), (self._size, 1)), axis=1).T
        unit = (parts + random.random((count, self._size))) / max(count, 1)
        return np.asarray(self._low + unit * (self._high - self._low))

    def _uncertain(self, kept: Results, count: int, random: np.random.Generator) -> Floats:
        """Points where samples are predicted worst by the others."""
        scored = np.isfinite(kept.gains).all(axis=1)
        gains = kept.gains[scored]
        scale = np.where(np.ptp(gains, axis=0) > 0.0, gains.std(axis=0), 1.0)
        errors = np.stack([one.left_out for one in self._fitted(kept)], axis=1) / scale
        unit = most_uncertain(self._unit(kept.points[scored]), (errors**2).sum(axis=1), count, random)
        return np.asarray(self._low + unit * (self._high - self._low))

    # --- the front --------------------------------------------------------------------------------------------

    def _fitted(self, kept: Results) -> tuple[Surrogate, ...]:
        """A surrogate for each objective, of coordinates of the unit cube."""
        if self._fits is None or self._fits[0] is not kept:
            self._fits = (kept, self._fit(kept))
        return self._fits[1]

    def _fit(self, kept: Results) -> tuple[Surrogate, ...]:
        scored = np.isfinite(kept.gains).all(axis=1)
        unit = self._unit(kept.points[scored])
        values = kept.gains[scored] * self._signs
        return tuple(fit(unit, column, self._s.link) for column in values.T)

    def _predict(self, surrogates: tuple[Surrogate, ...], unit: Floats) -> Floats:
        """Predicted gains."""
        return np.asarray(np.stack([surrogate(unit) for surrogate in surrogates], axis=1) * self._signs)

    def _to_verify(self, kept: Results, random: np.random.Generator) -> Floats:
        """New points of the surrogates' front, far from one another and from the front that was measured."""
        surrogates, scored = self._fitted(kept), np.isfinite(kept.gains).all(axis=1)
        found = predicted_front(
            lambda unit: self._predict(surrogates, unit),
            np.clip(self._unit(kept.points[scored]), 0.0, 1.0),
            self._s.surrogate_population,
            self._s.surrogate_generations,
            random,
        )
        points = self._low + found * (self._high - self._low)
        known = {self._space.decode(self._problem, x).digest for x in kept.points}
        new = np.array([self._space.decode(self._problem, x).digest not in known for x in points], dtype=np.bool_)
        chosen = spread(self._predict(surrogates, found[new]), kept.gains[scored], self._s.verify)
        return np.asarray(points[new][chosen])

    def diagnostics(self, state: BatchesState) -> dict[str, float]:
        """For each objective: share of variance explained, leave-one-out error, error at the last verified points."""
        found, kept = super().diagnostics(state), state.kept
        if np.isfinite(kept.gains).all(axis=1).sum() <= self._least:
            return found
        last = (kept.generations == kept.generations.max()) & np.isfinite(kept.gains).all(axis=1)
        before = kept.take(np.flatnonzero(kept.generations < kept.generations.max()))
        misses = None
        if len(before.numbers) and last.any():
            misses = self._predict(self._fit(before), self._unit(kept.points[last])) - kept.gains[last]
        for at, (one, surrogate) in enumerate(zip(self._objectives, self._fitted(kept), strict=True)):
            found[f"{one.name} r2"] = surrogate.r2
            found[f"{one.name} left-out error"] = surrogate.error
            if misses is not None:
                found[f"{one.name} verified error"] = float(np.sqrt((misses[:, at] ** 2).mean()))
        return found
