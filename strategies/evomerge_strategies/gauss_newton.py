"""Derivative-free Gauss-Newton in a trust region, on the losses of single items.

Other optimizers learn one number from an evaluation; a fitness with a loss per item gives hundreds. A model of
all of their margins, fitted to n + 1 points and more, is a model of the mean loss
(`evomerge_strategies.trust_region`), whose best step inside a trust region is tried next. Far fewer evaluations than a
population needs, where the loss is smooth in the coefficients and these are not many (say, up to a hundred). The method
is DFO-GN's (Cartis and Roberts 2019, Math. Program. Comp. 11), which has least squares where cross-entropy is here.

It minimizes the mean of the items' losses whatever the main objective is; the hall of fame goes by the objective. When
the region has shrunk to nothing, a new run begins at the next best starting point, then at random ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Candidate, Evaluated, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge.streams import stream
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.seeds import pool_seeds
from evomerge_strategies.threads import one_thread
from evomerge_strategies.trust_region import Rows, descend, fit, margins, missing_direction, near

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GaussNewtonSettings:
    """Gauss-Newton's settings. Lengths are shares of the space's box.

    Attributes:
        space: what the coefficients are.
        radius: of the first trust region.
        smallest: radius at which a run has converged.
        score_members: score the pool's members and their average first; the best of them is the first centre.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    radius: Annotated[float, Gt(0), Le(0.5)] = 0.2
    smallest: Annotated[float, Gt(0)] = 1e-4
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluated point: unit-box coordinates, mean loss and margins of the items (float32)."""

    number: int
    x: Floats
    value: float
    rows: Rows


@dataclass(frozen=True, slots=True)
class Trial:
    """A point to be tried. ``expected``: by how much the model says that the mean loss falls; 0 for all but steps."""

    x: Floats
    purpose: str
    expected: float = 0.0


@dataclass(frozen=True)
class GaussNewtonState:
    """One run: its points, its centre, and the trials that are out, asked in order from candidate ``first`` on.

    ``starts`` are the seeds' points, not yet begun from, best first; ``back`` counts the trials that were told.
    """

    asked: int = 0
    told: int = 0
    hall: Hall = ()
    starts: tuple[Point, ...] = ()
    points: tuple[Point, ...] = ()
    centre: Point | None = None
    radius: float = 0.0
    first: int = 0
    trials: tuple[Trial, ...] = ()
    back: int = 0
    runs: int = 0


class GaussNewton(Strategy[GaussNewtonState]):
    """See the module's docstring."""

    Settings = GaussNewtonSettings
    State = GaussNewtonState
    needs_whole = True

    def __init__(self, settings: GaussNewtonSettings, problem: Problem) -> None:
        require_members(problem, 1, "Gauss-Newton")
        settings.space.check(problem)
        self._size = settings.space.size(problem)
        if self._size == 0:
            raise StrategyError("Gauss-Newton needs at least 1 dimension; the space has none")
        if problem.items == 0 or not problem.losses:
            raise StrategyError("Gauss-Newton needs a loss for each item, and this fitness gives none; use cma instead")
        if settings.smallest >= settings.radius:
            raise StrategyError(f"smallest = {settings.smallest} is not below radius = {settings.radius}")
        self._s, self._problem = settings, problem
        self._low, high = settings.space.box(problem)
        self._width = high - self._low
        self._seeds = self._beginnings()

    def start(self) -> GaussNewtonState:
        """Nothing asked."""
        return GaussNewtonState()

    def _beginnings(self) -> tuple[Candidate, ...]:
        """Recipes to begin from: an earlier stage's, the members, their average, and the space's own start."""
        problem, space = self._problem, self._s.space
        recipes = list(problem.seeds)
        if self._s.score_members:
            recipes += [one.recipe for one in pool_seeds(problem)]
            share = (1.0 / len(problem.members),) * len(problem.members)
            parts = tuple(Segment(group.name, 0, group.size, share) for group in problem.groups)
            recipes.append(Recipe("linear", tuple(MEMBER + name for name in problem.members), parts))
        recipes.append(space.decode(problem, space.start(problem)))
        once = {recipe.digest: recipe for recipe in recipes}
        return tuple(Candidate(number, recipe, origin="seed") for number, recipe in enumerate(once.values()))

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: GaussNewtonState, room: int) -> tuple[GaussNewtonState, tuple[Candidate, ...]]:
        """The seeds, then what is left of the trials; nothing while all of them are out."""
        end = state.first + len(state.trials) if state.trials else len(self._seeds)
        numbers = range(state.asked, min(state.asked + max(room, 0), end))
        asked = tuple(self._candidate(state, number) for number in numbers)
        return replace(state, asked=state.asked + len(asked)), asked

    def _candidate(self, state: GaussNewtonState, number: int) -> Candidate:
        if number < len(self._seeds):
            return self._seeds[number]
        trial, centre = state.trials[number - state.first], state.centre
        recipe = self._s.space.decode(self._problem, self._low + self._width * trial.x)
        parents = () if centre is None else (centre.number,)
        return Candidate(number, recipe, parents, 1 + state.runs, trial.purpose)

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: GaussNewtonState, evaluated: Evaluated) -> GaussNewtonState:
        """Keep the point; the last of the trials that were out decides what is tried next."""
        hall = enter(state.hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
        state = replace(state, told=state.told + 1, hall=hall, back=state.back + 1)
        number = evaluated.candidate.number
        seed = number < len(self._seeds)
        x = self._place(evaluated.candidate.recipe) if seed else state.trials[number - state.first].x
        if evaluated.score is not None and x is not None:
            if evaluated.score.losses is None:
                raise StrategyError("Gauss-Newton was told a score without losses; use a fitness that gives them")
            value = float(evaluated.score.losses.mean(dtype=np.float64))
            point = Point(number, x, value, margins(evaluated.score.losses))
            state = replace(state, points=(*state.points, point))
        if state.back < (len(state.trials) or len(self._seeds)):
            return state
        points = tuple(sorted(state.points, key=lambda point: point.number))
        with one_thread():
            return self._next(replace(state, points=points, back=0, first=state.told))

    def _place(self, recipe: Recipe) -> Floats | None:
        """Where a seed lies in the unit box, if the space has it."""
        x = self._s.space.encode(self._problem, recipe)
        if x is None:
            return None
        place: Floats = (x - self._low) / self._width
        return np.clip(place, 0.0, 1.0) if self._s.space.limited else place

    def _next(self, state: GaussNewtonState) -> GaussNewtonState:
        if not state.trials:  # the seeds are back
            starts = tuple(sorted(state.points, key=lambda point: (point.value, point.number)))
            return self._begin(replace(state, starts=starts))
        if state.centre is None or state.trials[0].purpose == "start":
            centre = min(state.points, key=lambda point: (point.value, point.number), default=None)
            return self._begin(state) if centre is None else self._design(replace(state, centre=centre))
        state = self._judged(state, state.centre)
        if state.radius < self._s.smallest:
            return self._begin(state)
        return self._step(state)

    def _begin(self, state: GaussNewtonState) -> GaussNewtonState:
        """A new run: from the best seed that is left, or from a random point."""
        state = replace(state, runs=state.runs + 1, radius=self._s.radius, points=(), centre=None)
        if state.starts:
            others = tuple(state.starts[1:])
            seeds = tuple(sorted(state.starts, key=lambda point: point.number))
            return self._design(replace(state, centre=state.starts[0], starts=others, points=seeds))
        x = stream(self._problem.seed, state.runs, "gauss_newton:start").random(self._size)
        return replace(state, trials=(Trial(x, "start"),))

    def _design(self, state: GaussNewtonState) -> GaussNewtonState:
        """One trial along each axis, towards the farther wall."""
        centre = _known(state.centre)
        signs = np.where(centre.x <= 0.5, 1.0, -1.0)
        steps = np.diag(signs * state.radius)
        return replace(state, trials=tuple(Trial(centre.x + step, "design") for step in steps))

    def _judged(self, state: GaussNewtonState, centre: Point) -> GaussNewtonState:
        """The trust region after its trials: moved to a better point, grown or shrunk by how true the model was."""
        trial, best = state.trials[0], min(state.points, key=lambda point: (point.value, point.number))
        gained = centre.value - best.value
        state = replace(state, centre=best if gained > 0 else centre)
        if trial.purpose != "step":
            return state
        ratio = gained / trial.expected if trial.expected > 0 else 0.0
        length = float(np.abs(trial.x - centre.x).max()) / state.radius
        if ratio >= 0.7 and length > 0.9:
            return replace(state, radius=min(2.0 * state.radius, 0.5))
        if ratio >= 0.1:  # a short step is one that found what it sought
            return replace(state, radius=max(0.5, min(2.0 * length, 1.0)) * state.radius)
        if missing_direction(self._steps(state)) is not None:
            return state
        return replace(state, radius=0.5 * state.radius)

    def _step(self, state: GaussNewtonState) -> GaussNewtonState:
        """The next trial: the model's best step, or a look in a direction that the model knows nothing of."""
        centre, steps = _known(state.centre), self._steps(state)
        others = [point for point in state.points if point.number != centre.number]
        chosen = near(steps)
        kept = [point for point, one in zip(others, chosen, strict=True) if one]
        state = replace(state, points=tuple(sorted((*kept, centre), key=lambda point: point.number)))
        steps = steps[chosen]
        low, high = self._reach(centre.x, state.radius)
        rows, values = np.stack([point.rows for point in kept]), np.array([point.value for point in kept])
        model = fit(steps, rows, values - centre.value, centre.rows)
        step, gain = descend(model, low, high)
        failed = state.trials[0].purpose == "step" and centre.number != state.told - 1
        direction = missing_direction(steps) if failed else None
        if direction is not None:
            step = min((np.clip(sign * direction, low, high) for sign in (1.0, -1.0)), key=model.value)
            return replace(state, trials=(Trial(centre.x + state.radius * step, "geometry"),))
        if np.abs(step).max() * state.radius < 0.1 * self._s.smallest:
            return self._begin(state)
        return replace(state, trials=(Trial(centre.x + state.radius * step, "step", gain),))

    def _steps(self, state: GaussNewtonState) -> Floats:
        """All points but the centre as steps from it in radii, (m, n)."""
        centre = _known(state.centre)
        others = [point.x for point in state.points if point.number != centre.number]
        return (np.reshape(others, (-1, self._size)) - centre.x) / state.radius

    def _reach(self, x: Floats, radius: float) -> tuple[Floats, Floats]:
        """The trust region around x within the box, as steps in radii."""
        ones = np.ones(self._size)
        if not self._s.space.limited:
            return -ones, ones
        return np.maximum(-ones, -x / radius), np.minimum(ones, (1.0 - x) / radius)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: GaussNewtonState) -> tuple[int | None, ...]:
        """The points of the present model, by number."""
        return tuple(point.number for point in state.points)

    def finalists(self, state: GaussNewtonState) -> tuple[int, ...]:
        """The best ones told, best first."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: GaussNewtonState) -> str | None:
        """Never: there is always another random start."""
        return None

    def diagnostics(self, state: GaussNewtonState) -> dict[str, float]:
        """The trust region's radius as a share of the box, how many runs were begun, the centre's mean loss."""
        loss = math.nan if state.centre is None else state.centre.value
        numbers = {"radius": state.radius, "runs": float(state.runs), "centre_loss": loss}
        return {name: value for name, value in numbers.items() if not math.isnan(value)}


def _known(centre: Point | None) -> Point:
    if centre is None:
        raise StrategyError("a run of Gauss-Newton has no centre; this is a defect of the strategy")
    return centre
