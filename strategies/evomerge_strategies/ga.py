"""A plain genetic algorithm for real numbers: tournaments, simulated binary crossover, polynomial mutation, elitism.

The baseline that published searches of merge coefficients use. Generational: the children replace all but the elite.
Steady state: a child replaces the worst as soon as it has come back better. No candidate is proposed that is in the
population or out already, as far as tries suffice. Whole numbers are bred as real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge.streams import stream
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.seeds import given_seeds
from evomerge_strategies.variation import Variation

Floats = NDArray[np.float64]

TRIES = 50
"""Times that a child is bred again because it is there already; a space of few points then repeats itself."""


@dataclass(frozen=True)
class GASettings:
    """A genetic algorithm's settings.

    Attributes:
        space: what the coefficients are.
        replacement: by whole generations (``generational``), or child by child (``steady_state``).
        popsize: how many are in the population.
        elite: how many of the best survive a generation.
        tournament: how many are drawn for a parent, of whom the best is taken.
        crossover: chance that two parents are crossed (simulated binary crossover).
        crossover_eta: its distribution index: larger keeps children nearer to their parents.
        mutation: chance that a coordinate mutates (polynomial mutation); default: one coordinate in each child.
        mutation_eta: its distribution index: larger makes smaller steps.
        score_members: score the pool's members first; those that the space can express are in the first population.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    replacement: Literal["generational", "steady_state"] = "generational"
    popsize: Annotated[int, Gt(1)] = 20
    elite: Annotated[int, Ge(0)] = 1
    tournament: Annotated[int, Gt(0)] = 2
    crossover: Annotated[float, Ge(0), Le(1)] = 0.9
    crossover_eta: Annotated[float, Ge(0)] = 15.0
    mutation: Annotated[float, Gt(0), Le(1)] | None = None
    mutation_eta: Annotated[float, Ge(0)] = 20.0
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True, eq=False, slots=True)
class Individual:
    """A candidate with its vector; ``loss`` is smaller for better, infinite while it is out."""

    number: int
    generation: int
    digest: str
    x: Floats
    loss: float = np.inf


@dataclass(frozen=True)
class GAState:
    """All that the next children depend on.

    Attributes:
        asked: number of candidates asked.
        told: number of candidates told.
        population: best first.
        brood: children of the present generation that have come back (``generational``).
        out: candidates with a vector that have not come back.
        planned: how many the present generation still has to ask; the first one has the seeds as well.
        closed: how many generations have come back.
        hall: the best ever seen, best first.
    """

    asked: int
    told: int
    population: tuple[Individual, ...]
    brood: tuple[Individual, ...]
    out: tuple[Individual, ...]
    planned: int
    closed: int = 0
    hall: Hall = ()


class GA(Strategy[GAState]):
    """See the module's docstring."""

    Settings = GASettings
    State = GAState

    def __init__(self, settings: GASettings, problem: Problem) -> None:
        space = settings.space
        require_members(problem, 1, "ga")
        space.check(problem)
        self._size = space.size(problem)
        if self._size == 0:
            raise StrategyError("ga has nothing to search: every parameter of its space is fixed; free one")
        if settings.elite >= settings.popsize:
            raise StrategyError(f"ga: elite = {settings.elite} leaves no child in a popsize of {settings.popsize}")
        self._s, self._problem = settings, problem
        self._seeds = given_seeds(problem) if settings.score_members else ()
        self._vectors = tuple(space.encode(problem, seed.recipe) for seed in self._seeds)
        self._low, self._high = space.box(problem)
        free = np.full(self._size, np.inf)
        self._variation = Variation(
            low=self._low if space.limited else -free,
            high=self._high if space.limited else free,
            span=self._high - self._low,
            crossover=settings.crossover,
            crossover_eta=settings.crossover_eta,
            mutation=1.0 / self._size if settings.mutation is None else settings.mutation,
            mutation_eta=settings.mutation_eta,
        )

    def start(self) -> GAState:
        """Nobody yet; the first generation is the seeds and as many random points as fill the population."""
        known = sum(x is not None for x in self._vectors)
        return GAState(0, 0, (), (), (), len(self._seeds) + max(self._s.popsize - known, 0))

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: GAState, room: int) -> tuple[GAState, tuple[Candidate, ...]]:
        """What is left of the generation; in a steady state, children without end once the first has come back."""
        endless = self._s.replacement == "steady_state" and state.planned == 0 and state.closed > 0
        candidates: list[Candidate] = []
        out = state.out
        for number in range(state.asked, state.asked + max(room if endless else min(room, state.planned), 0)):
            candidate, x = self._next(replace(state, out=out), number)
            candidates.append(candidate)
            if x is not None:
                out = (*out, Individual(number, candidate.generation, candidate.recipe.digest, x))
        planned = state.planned if endless else state.planned - len(candidates)
        return replace(state, asked=state.asked + len(candidates), out=out, planned=planned), tuple(candidates)

    def _next(self, state: GAState, number: int) -> tuple[Candidate, Floats | None]:
        if number < len(self._seeds):
            return self._seeds[number], self._vectors[number]
        random = stream(self._problem.seed, number, "ga")
        known = {one.digest for one in (*state.population, *state.brood, *state.out)}
        bred = self._bred(state.population, random) if state.population else self._drawn(random)
        for _ in range(TRIES):
            x, parents = next(bred)
            recipe = self._s.space.decode(self._problem, x)
            if recipe.digest not in known:
                break
        x.flags.writeable = False
        numbers = tuple(dict.fromkeys(parent.number for parent in parents))
        generation = 1 + max((parent.generation for parent in parents), default=-1)
        return Candidate(number, recipe, numbers, generation, "bred" if parents else "random"), x

    def _bred(
        self, population: tuple[Individual, ...], random: np.random.Generator
    ) -> Iterator[tuple[Floats, tuple[Individual, ...]]]:
        """Children and their parents, without end; of two children the first is taken."""
        while True:
            # the population is sorted: the least of the drawn places wins a tournament
            one, two = (population[at] for at in random.integers(len(population), size=(2, self._s.tournament)).min(1))
            yield self._variation.children(one.x[None], two.x[None], random)[0], (one, two)

    def _drawn(self, random: np.random.Generator) -> Iterator[tuple[Floats, tuple[Individual, ...]]]:
        """Points of the box, without end."""
        while True:
            yield random.uniform(self._low, self._high), ()

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: GAState, evaluated: Evaluated) -> GAState:
        """Note what came back; the last of a generation closes it."""
        number, objective = evaluated.candidate.number, self._problem.objectives[0]
        back = tuple(one for one in state.out if one.number == number and evaluated.score is not None)
        loss = 0.0 if evaluated.score is None else -objective.gain(evaluated.score[objective.name])
        state = replace(
            state,
            told=state.told + 1,
            out=tuple(one for one in state.out if one.number != number),
            brood=(*state.brood, *(replace(one, loss=loss) for one in back)),
            hall=enter(state.hall, evaluated, objective, self._s.hall_of_fame),
        )
        endless = self._s.replacement == "steady_state" and state.closed > 0
        return self._closed(state) if endless or (state.planned == 0 and state.told == state.asked) else state

    def _closed(self, state: GAState) -> GAState:
        """The next generation's state; in a steady state, that in which the newcomer has competed with all."""
        steady = self._s.replacement == "steady_state"
        stay = len(state.population) if steady else min(self._s.elite, len(state.population))
        planned = 0 if steady else self._s.popsize - self._s.elite
        rivals, spare = (*state.population[:stay], *state.brood), state.population[stay:]
        # sorting is stable: of equals the elder leads. Elders fill the places of children that failed
        kept = sorted((*rivals, *spare[: max(self._s.popsize - len(rivals), 0)]), key=lambda one: one.loss)
        population = tuple(kept[: self._s.popsize])
        return replace(state, population=population, brood=(), planned=planned, closed=state.closed + 1)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: GAState) -> tuple[int | None, ...]:
        """Candidate numbers, best first."""
        empty = self._s.popsize - len(state.population)
        return (*(one.number for one in state.population), *[None] * empty)

    def finalists(self, state: GAState) -> tuple[int, ...]:
        """The hall of fame, best first."""
        return tuple(number for _, number in state.hall)

    def diagnostics(self, state: GAState) -> dict[str, float]:
        """Generations, and the mean standard deviation of the population's coordinates in parts of the box."""
        points = np.array([one.x for one in state.population]).reshape(-1, self._size)
        spread = float((points.std(axis=0) / (self._high - self._low)).mean()) if len(points) else 0.0
        return {"generations": float(state.closed), "spread": spread}
