"""Random search: uniform draws from a search space, the control that every other strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, OperatorSpace, WeightSpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge.streams import stream
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.seeds import pool_seeds

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RandomSearchSettings:
    """Random search's settings.

    Attributes:
        space: where to draw from.
        dirichlet: parameters of an ``operator`` space whose values over the models are drawn uniformly from those that
            sum to one (flat Dirichlet) instead, as the weights in Fisher merging.
        score_members: score the pool's members first.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    dirichlet: tuple[str, ...] = ()
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class RandomSearchState:
    """Only the best ones seen: (value, number), best first."""

    asked: int = 0
    told: int = 0
    hall: Hall = ()


class RandomSearch(Strategy[RandomSearchState]):
    """See the module's docstring. A simplex is drawn from uniformly (flat Dirichlet), a box likewise."""

    Settings = RandomSearchSettings
    State = RandomSearchState

    def __init__(self, settings: RandomSearchSettings, problem: Problem) -> None:
        require_members(problem, 1, "random search")
        settings.space.check(problem)
        self._simplexes = [row for name in settings.dirichlet for row in _simplexes(name, settings.space, problem)]
        self._s, self._problem = settings, problem
        self._seeds = pool_seeds(problem) if settings.score_members else ()

    def start(self) -> RandomSearchState:
        """Nothing seen."""
        return RandomSearchState()

    def ask(self, state: RandomSearchState, room: int) -> tuple[RandomSearchState, tuple[Candidate, ...]]:
        """The members of the pool, then draws without end."""
        numbers = range(state.asked, state.asked + max(room, 0))
        return replace(state, asked=numbers.stop), tuple(self._candidate(number) for number in numbers)

    def _candidate(self, number: int) -> Candidate:
        if number < len(self._seeds):
            return self._seeds[number]
        return Candidate(number, self._s.space.decode(self._problem, self._draw(number)), origin="random")

    def _draw(self, number: int) -> list[float]:
        space, random = self._s.space, stream(self._problem.seed, number)
        size, members = space.size(self._problem), len(self._problem.members)
        if isinstance(space, WeightSpace) and space.kind == "simplex":
            return list(random.dirichlet(np.ones(members), size // members).ravel().tolist())
        low, high = space.box(self._problem)
        x = random.uniform(low, high, size)
        for row in self._simplexes:
            x[row] = random.dirichlet(np.ones(row.size))
        return list(x.tolist())

    def tell(self, state: RandomSearchState, evaluated: Evaluated) -> RandomSearchState:
        """Remember it if it is among the best."""
        hall = enter(state.hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
        return replace(state, told=state.told + 1, hall=hall)

    def population(self, state: RandomSearchState) -> tuple[int | None, ...]:
        """The best ones seen."""
        return tuple(number for _, number in state.hall)

    def finalists(self, state: RandomSearchState) -> tuple[int, ...]:
        """The best ones seen, best first."""
        return tuple(number for _, number in state.hall)


def _simplexes(name: str, space: AnySpace, problem: Problem) -> Ints:
    """Places of a parameter's values for all models: (groups, models).

    Raises:
        StrategyError: it has none of its own for each model, or they are not searched from 0 to 1.
    """
    per = {}
    if isinstance(space, OperatorSpace):
        per = {one.name: one.per for one in problem.operator(space.operator).parameters if one.name not in space.shared}
    dimensions = space.dimensions(problem)
    places = [at for at, dimension in enumerate(dimensions) if dimension.name.split(".")[0] == name]
    if not isinstance(space, OperatorSpace) or per.get(name, "segment") == "segment" or not places:
        raise StrategyError(f"dirichlet: {name!r} is no searched parameter with a value for each model; correct it")
    if any(dimensions[at].low > 0 or dimensions[at].high < 1 for at in places):
        raise StrategyError(f"dirichlet: {name!r} must be searched from 0 to 1; set space.search")
    return np.array(places).reshape(1 if name in space.whole else len(problem.groups), -1)
