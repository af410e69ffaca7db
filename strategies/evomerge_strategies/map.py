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
from evomerge_strategies.batches import Batch, Batches, BatchesState, Results, joined
from evomerge_strategies.pareto import Front, chosen_objectives
from evomerge_strategies.sampling import latin_hypercube, most_uncertain
from evomerge_strategies.seeds import given_seeds
from evomerge_strategies.surrogate import Surrogates, fit_all, unknowns
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
    surrogate_generations: Annotated[int, Gt(0)] = 25
    front: Annotated[int, Gt(0)] = 100


class MAP(Batches):
    """See the module's docstring. Samples are generation 0, round r of verification is generation r."""

    Settings = MAPSettings
    needs_whole = True

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
        self._fits: tuple[Results, Surrogates] | None = None  # rebuilt from any state

    def propose(self, kept: Results, closed: int, first: int) -> Batch:
        """Samples as long as they are too few, then points of the surrogates' front."""
        random = stream(self._problem.seed, first, "map")
        scored, asked = int(kept.scored.sum()), len(kept.numbers)
        adaptive = self._s.sampling == "adaptive"
        if closed == 0:
            seeds = self.seeds(given_seeds(self._problem))
            size = self._least + self._size if adaptive else self._samples
            drawn = self._drawn(size - int(np.isfinite(seeds.points).all(axis=1).sum()), random)
            return joined(seeds, self.made(drawn, "sample"))
        if scored <= self._least:
            return self.made(self._drawn(self._least + 1 - scored, random), "sample")
        if asked < self._samples:
            return self.made(self._uncertain(kept, min(self._samples - asked, self._size + 1), random), "residual")
        done = int(kept.generations.max())
        if self._s.rounds is not None and done >= self._s.rounds:
            return self.made(kept.points[:0], "front")
        points = self._to_verify(kept, random)
        if not len(points):  # the whole predicted front is known: other samples may change it
            return self.made(self._drawn(self._s.verify, random), "sample", done)
        return self.made(points, "front", done + 1)

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

    def _box(self, unit: Floats) -> Floats:
        """The other way round."""
        return np.asarray(self._low + unit * (self._high - self._low))

    def _drawn(self, count: int, random: np.random.Generator) -> Floats:
        return self._box(latin_hypercube(max(count, 0), self._size, random))

    def _uncertain(self, kept: Results, count: int, random: np.random.Generator) -> Floats:
        """Points where samples are predicted worst by the others."""
        values = kept.gains[kept.scored]
        scale = np.where(np.ptp(values, axis=0) > 0.0, values.std(axis=0), 1.0)
        errors = np.stack([one.left_out for one in self._fitted(kept).each], axis=1) / scale
        return self._box(most_uncertain(self._unit(kept.points[kept.scored]), (errors**2).sum(axis=1), count, random))

    # --- the front --------------------------------------------------------------------------------------------

    def _fitted(self, kept: Results) -> Surrogates:
        """Surrogates of coordinates of the unit cube."""
        if self._fits is None or self._fits[0] is not kept:
            self._fits = (kept, self._fit(kept))
        return self._fits[1]

    def _fit(self, kept: Results) -> Surrogates:
        return fit_all(self._unit(kept.points), kept.gains, self._signs, self._s.link)

    def _to_verify(self, kept: Results, random: np.random.Generator) -> Floats:
        """New points of the surrogates' front, far from one another and from the front that was measured."""
        predict, start = self._fitted(kept), np.clip(self._unit(kept.points[kept.scored]), 0.0, 1.0)
        found = predicted_front(predict, start, self._s.surrogate_population, self._s.surrogate_generations, random)
        known = {self._space.decode(self._problem, x).digest for x in kept.points}
        points = self._box(found)
        new = np.array([self._space.decode(self._problem, x).digest not in known for x in points], dtype=np.bool_)
        return points[new][spread(predict(found[new]), kept.gains[kept.scored], self._s.verify)]

    def diagnostics(self, state: BatchesState) -> dict[str, float]:
        """For each objective: share of variance explained, leave-one-out error, error at the last verified points."""
        found, kept = super().diagnostics(state), state.kept
        if kept.scored.sum() <= self._least:
            return found
        for one, surrogate in zip(self._objectives, self._fitted(kept).each, strict=True):
            found[f"{one.name} r2"] = surrogate.r2
            found[f"{one.name} left-out error"] = surrogate.error
        last = kept.generations == kept.generations.max()
        before, new = kept.take(np.flatnonzero(~last)), kept.take(np.flatnonzero(last & kept.scored))
        if len(before.numbers) and len(new.numbers):
            misses = self._fit(before)(self._unit(new.points)) - new.gains
            for one, column in zip(self._objectives, misses.T, strict=True):
                found[f"{one.name} verified error"] = float(np.sqrt((column**2).mean()))
        return found
