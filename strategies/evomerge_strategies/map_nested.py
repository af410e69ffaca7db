"""Nested MAP: compromises between many tasks by merging pairs of experts, and then pairs of what came out.

A pair is a plane of two coefficients, however many tasks there are: 20 samples, a quadratic surrogate of each of its
tasks, and the point that the preference likes best becomes one expert of the next round. N experts take 20 (N - 1)
samples. The last plane is searched as in `map`: its predicted front, verified round after round.
Source: Li et al., arXiv 2406.07529 (see `map`). Whose task is whose is measured: an objective belongs to the pool
member that does best on it; one with none helps with all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.errors import StrategyError, nearest
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, require_members
from evomerge.streams import stream
from evomerge_strategies.batches import Batch, Batches, BatchesState, Results
from evomerge_strategies.pareto import Front, chosen_objectives
from evomerge_strategies.sampling import latin_hypercube
from evomerge_strategies.seeds import pool_seeds
from evomerge_strategies.surrogate import Surrogates, fit_all, unknowns
from evomerge_strategies.surrogate_front import predicted_front, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = unknowns(2) + 1
GRID = 41  # values of a coefficient among which a pair's preferred point is chosen


@dataclass(frozen=True)
class NestedMAPSettings:
    """Nested MAP's settings.

    Attributes:
        space: weights of the members, one each for the whole model; its bounds are those of a pair's coefficients.
        objectives: names of the study's objectives to search, the main one among them; default: all.
        samples: evaluations of each pair.
        preference: how much an objective counts when a pair's point is chosen; default: 1. Each is scaled so that the
            worst of the pool's members has 0 and the best 1.
        link: what stands between quadratic and objective; `auto`: what predicts left-out samples best.
        verify: points of the last pair's predicted front evaluated in each round.
        rounds: rounds of verification; default: until the budget is spent.
        surrogate_population: size of NSGA-III's population on the surrogates.
        surrogate_generations: its generations.
        front: how many results that no other dominates are remembered as finalists.
    """

    space: AnySpace = field(default_factory=lambda: WeightSpace("task_arithmetic", per_group=False))
    objectives: tuple[str, ...] = ()
    samples: Annotated[int, Ge(LEAST)] = 20
    preference: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    link: Literal["auto", "identity", "sigmoid", "softplus"] = "auto"
    verify: Annotated[int, Gt(0)] = 5
    rounds: Annotated[int, Gt(0)] | None = None
    surrogate_population: Annotated[int, Gt(3)] = 100
    surrogate_generations: Annotated[int, Gt(0)] = 25
    front: Annotated[int, Gt(0)] = 100


@dataclass(frozen=True, eq=False)
class Expert:
    """A pool member, or what became of a pair: ``vector`` (members,) of weights, its tasks, and its mean gain there."""

    vector: Floats
    tasks: frozenset[int]
    gain: float


@dataclass(frozen=True, eq=False)
class Plane:
    """A pair of experts and what was measured of their combinations ``results``, in some round."""

    first: Expert
    second: Expert
    results: Results

    @property
    def axes(self) -> Floats:
        """(2, members)."""
        return np.stack([self.first.vector, self.second.vector])

    @property
    def missing(self) -> int:
        """Samples without which nothing can be fitted."""
        return max(LEAST - int(self.results.scored.sum()), 0)

    def coefficients(self) -> Floats:
        """(n, 2) of the results: the axes have no member in common, so each stands alone."""
        axes = self.axes
        return np.asarray(self.results.points @ axes.T / (axes**2).sum(axis=1))


class NestedMAP(Batches):
    """See the module's docstring. Generation r is round r of pairs; rounds of verification follow."""

    Settings = NestedMAPSettings
    needs_whole = True

    def __init__(self, settings: NestedMAPSettings, problem: Problem) -> None:
        require_members(problem, 2, "nested MAP")
        space = settings.space
        if not isinstance(space, WeightSpace) or space.kind == "simplex" or space.per_group:
            raise StrategyError(
                "nested MAP combines weights of whole members; take space {kind: task_arithmetic, per_group: false}, "
                "or kind: linear"
            )
        space.check(problem)
        objectives = chosen_objectives(problem, settings.objectives, "nested MAP")
        super().__init__(problem, space, objectives, settings.front)
        names = [one.name for one in objectives]
        for name in settings.preference:
            if name not in names:
                raise StrategyError(
                    f"preference names {name!r}, which is not searched; {nearest(name, names)}correct it"
                )
        self._s, self._low, self._high = settings, space.low, space.high
        self._signs = np.array([one.gain(1.0) for one in objectives])
        self._preference = np.array([settings.preference.get(name, 1.0) for name in names])

    def propose(self, kept: Results, closed: int, first: int) -> Batch:
        """The members; then samples of every pair of a round; then points of the last plane's front."""
        if closed == 0:
            return self.seeds(pool_seeds(self._problem))
        random = stream(self._problem.seed, first, "map_nested")
        level, planes = self._round(kept)
        begun = any(len(plane.results.numbers) for plane in planes)
        wanted = [plane.missing if begun else self._s.samples for plane in planes]
        if any(wanted):
            samples = [self._sampled(plane, count, random) for plane, count in zip(planes, wanted, strict=True)]
            return self.made(np.concatenate(samples), "pair", level)
        done = int(kept.generations.max()) - level
        if not planes or (self._s.rounds is not None and done >= self._s.rounds):
            return self.made(kept.points[:0], "front")
        points = self._to_verify(planes[0], kept, random)
        if not len(points):  # the whole predicted front is known: other samples may change it
            return self.made(self._sampled(planes[0], self._s.verify, random), "pair", level + done)
        return self.made(points, "front", level + done + 1)

    def keep(self, results: Results, front: Front, closed: int) -> Ints:
        """All, failures too."""
        return np.arange(len(results.numbers))

    def finished(self) -> str:
        """All rounds are done, or there was no pair."""
        rounds = self._s.rounds
        return "fewer than two members could be scored" if rounds is None else f"all {rounds} rounds are verified"

    # --- rounds of pairs --------------------------------------------------------------------------------------

    def _round(self, kept: Results) -> tuple[int, list[Plane]]:
        """The round under way, and its pairs; the last round has one."""
        members = kept.take(np.flatnonzero((kept.generations == 0) & kept.scored))
        experts, level = self._members(members), 1
        while True:
            ordered = sorted(experts, key=lambda one: one.gain)  # stable: the pool's order among equals
            last = len(ordered) == 2
            pairs = zip(ordered[::2], ordered[1::2], strict=False)
            planes = [Plane(a, b, self._results_of(a, b, kept, level, last)) for a, b in pairs]
            if len(ordered) <= 2 or any(not len(one.results.numbers) or one.missing for one in planes):
                return level, planes
            odd = ordered[2 * len(planes) :]
            experts, level = [self._merged(plane, members) for plane in planes] + odd, level + 1

    def _members(self, members: Results) -> list[Expert]:
        """Each with the objectives on which no other member is better."""
        owner = np.argmax(members.gains, axis=0) if len(members.numbers) else np.zeros(0, dtype=np.int64)
        experts = []
        for at, vector in enumerate(members.points):
            tasks = frozenset(np.flatnonzero(owner == at).tolist())
            experts.append(Expert(vector, tasks, float(members.gains[at, self._columns(tasks)].mean())))
        return experts

    def _columns(self, tasks: frozenset[int]) -> list[int]:
        """The objectives that count: all, where none is its own."""
        return sorted(tasks) or list(range(len(self._objectives)))

    def _results_of(self, a: Expert, b: Expert, kept: Results, level: int, last: bool) -> Results:
        """What was measured of a pair in its round (or since, if it is the last): points of its members only."""
        others = (a.vector == 0.0) & (b.vector == 0.0)
        when = kept.generations >= level if last else kept.generations == level
        within = (kept.points[:, others] == 0.0).all(axis=1)
        return kept.take(np.flatnonzero(when & within))

    def _merged(self, plane: Plane, members: Results) -> Expert:
        """The point of the pair's plane that the preference likes best, by the surrogates."""
        tasks = plane.first.tasks | plane.second.tasks
        columns = self._columns(tasks)
        steps = np.linspace(0.0, 1.0, GRID)
        grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = grid[(np.abs(self._weights(grid)) > 1e-9).all(axis=1)]  # or a member would be lost for good
        gains = self._fitted(plane)(grid)[:, columns]
        worst, best = members.gains.min(axis=0)[columns], members.gains.max(axis=0)[columns]
        worth = (gains - worst) / np.where(best > worst, best - worst, 1.0) @ self._preference[columns]
        chosen = int(np.argmax(worth))
        return Expert(self._weights(grid[chosen]) @ plane.axes, tasks, float(gains[chosen].mean()))

    # --- one plane --------------------------------------------------------------------------------------------

    def _weights(self, unit: Floats) -> Floats:
        """Coefficients of points of the unit square."""
        return np.asarray(self._low + unit * (self._high - self._low))

    def _sampled(self, plane: Plane, count: int, random: np.random.Generator) -> Floats:
        return np.asarray(self._weights(latin_hypercube(count, 2, random)) @ plane.axes)

    def _fitted(self, plane: Plane) -> Surrogates:
        unit = (plane.coefficients() - self._low) / (self._high - self._low)
        return fit_all(unit, plane.results.gains, self._signs, self._s.link)

    def _to_verify(self, plane: Plane, kept: Results, random: np.random.Generator) -> Floats:
        """New points of the plane's predicted front, far from one another and from the front that was measured."""
        predict, measured = self._fitted(plane), kept.gains[kept.scored]
        start = np.clip((plane.coefficients() - self._low) / (self._high - self._low), 0.0, 1.0)
        found = predicted_front(predict, start, self._s.surrogate_population, self._s.surrogate_generations, random)
        new = ~(found[:, None, :] == start[None, :, :]).all(axis=2).any(axis=1)
        chosen = spread(predict(found[new]), measured, self._s.verify)
        return np.asarray(self._weights(found[new][chosen]) @ plane.axes)

    def diagnostics(self, state: BatchesState) -> dict[str, float]:
        """The round, and how well the last plane's surrogates fit."""
        found = super().diagnostics(state)
        if state.closed == 0:
            return found
        level, planes = self._round(state.kept)
        found["round"] = float(level)
        if len(planes) == 1 and len(planes[0].results.numbers) and not planes[0].missing:
            for one, surrogate in zip(self._objectives, self._fitted(planes[0]).each, strict=True):
                found[f"{one.name} r2"] = surrogate.r2
                found[f"{one.name} left-out error"] = surrogate.error
        return found
