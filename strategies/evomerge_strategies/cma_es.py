"""CMA-ES over merge coefficients, by pycma (Hansen, Akimoto, Baudis), made exactly resumable.

Full or separable (Ros & Hansen, PPSN 2008), with or without active updates, restarted with IPOP or BIPOP. What is kept
is what pycma was told, generation by generation; a fresh object that is asked and told the same continues bit for bit,
because its normal draws come from our named streams. Only the order of losses matters, never their size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from evomerge.candidate import Recipe
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, require_members
from evomerge_strategies.generations import Generational, GenerationsState, Searcher
from evomerge_strategies.pycma import Engine, Floats, Search
from evomerge_strategies.restarts import AtStop
from evomerge_strategies.seeds import pool_seeds

SEPARABLE_FROM = 50
"""So many dimensions take longer to learn covariances of than a search of models lasts."""


@dataclass(frozen=True)
class CMAESSettings:
    """CMA-ES's settings.

    Attributes:
        space: what the coefficients are.
        start: first mean, in search units: the same in every dimension, or a number for each operator's parameter (for
            a space of weights: each parameter group); default: the best of an earlier stage, or else the space's own.
        sigma: first step size along the longest side of the space's box, shorter along others in proportion;
            default: 0.2 of the side.
        popsize: candidates in a generation; default: 4 + floor(3 ln n).
        diagonal: learn variances only (separable CMA-ES); default: from 50 dimensions on.
        active: learn from the worst candidates, too.
        bounds: what keeps proposals inside the space: pycma's smooth ``transform`` at the edges; or ``repair``, which
            takes the nearest point inside, and tells pycma of that point and not of its proposal.
        at_stop: what to do when pycma sees no more progress: begin again at a random point, with a doubled population
            (``ipop``), with large and small ones in turn (``bipop``) or as the first time (``again``); ``finish`` the
            search; or ``go_on`` to the budget's end.
        score_members: score the pool's members first.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    start: float | dict[str, float] | None = None
    sigma: Annotated[float, Gt(0)] | None = None
    popsize: Annotated[int, Gt(2)] | None = None
    diagonal: bool | None = None
    active: bool = True
    bounds: Literal["transform", "repair"] = "transform"
    at_stop: AtStop = "ipop"
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


class CMAES(Generational):
    """See the module's docstring.

    It starts from the first of the problem's ``seeds`` that its space has a vector for, unless the settings name a
    start.
    """

    Settings = CMAESSettings
    State = GenerationsState

    def __init__(self, settings: CMAESSettings, problem: Problem) -> None:
        require_members(problem, 1, "CMA-ES")
        settings.space.check(problem)
        if settings.space.size(problem) < 2:
            raise StrategyError("CMA-ES needs at least 2 dimensions; add members, groups, or use random search")
        super().__init__(problem, pool_seeds(problem) if settings.score_members else (), settings.hall_of_fame)
        start, self._seed = _start(settings, problem)
        self._s, self._search = settings, _search(settings, problem, start)

    def searcher(self) -> Searcher:
        """The first run, at its start."""
        return _Coefficients(self._s, self._problem, self._search, self._seed)


def _search(settings: CMAESSettings, problem: Problem, start: Floats) -> Search:
    space, size = settings.space, settings.space.size(problem)
    low, high = space.box(problem)
    return Search(
        seed=problem.seed,
        name="cma",
        start=np.clip(start, low, high) if space.limited else start,
        low=low,
        high=high,
        sigma=settings.sigma or 0.2 * float((high - low).max()),
        popsize=settings.popsize,
        bounded=space.limited and settings.bounds == "transform",
        integers=tuple(at for at, one in enumerate(space.dimensions(problem)) if one.kind == "integer"),
        diagonal=size >= SEPARABLE_FROM if settings.diagonal is None else settings.diagonal,
        active=settings.active,
        repaired=settings.bounds == "repair",
        at_stop=settings.at_stop,
    )


def _start(settings: CMAESSettings, problem: Problem) -> tuple[Floats, int | None]:
    """The first mean, and which of the problem's seeds it is."""
    space, given = settings.space, settings.start
    if given is None:
        found = ((x, at) for at, recipe in enumerate(problem.seeds) if (x := space.encode(problem, recipe)) is not None)
        return next(found, (space.start(problem), None))
    names = [dimension.name.partition(".")[0] for dimension in space.dimensions(problem)]
    if not isinstance(given, dict):
        return np.full(len(names), float(given)), None
    if given.keys() != set(names):
        missing, more = sorted(set(names) - given.keys()), sorted(given.keys() - set(names))
        raise StrategyError(
            f"strategy.start {f'lacks {missing[0]!r}' if missing else f'names {more[0]!r}, which is not searched'}; "
            f"give a number for each of {', '.join(dict.fromkeys(names))}"
        )
    return np.array([float(given[name]) for name in names]), None


class _Coefficients(Searcher):
    """pycma's proposals as recipes."""

    origin = "cma"

    def __init__(self, settings: CMAESSettings, problem: Problem, search: Search, seed: int | None) -> None:
        self._space, self._problem, self._search, self.seed = settings.space, problem, search, seed
        self._repairs = settings.bounds == "repair"
        self._engine = Engine(search)

    @property
    def size(self) -> int:
        return len(self._engine.proposals)

    @property
    def finished(self) -> str | None:
        return self._engine.finished

    def recipe(self, at: int) -> Recipe:
        return self._space.decode(self._problem, self._inside(self._engine.proposals[at]))

    def tell(self, losses: Floats) -> None:
        self._engine.tell(losses, [self._told(x) for x in self._engine.proposals] if self._repairs else None)

    def diagnostics(self) -> dict[str, float]:
        return self._engine.diagnostics()

    def _inside(self, x: Floats) -> Floats:
        """The nearest point of the box."""
        return np.clip(x, self._search.low, self._search.high) if self._repairs and self._space.limited else x

    def _told(self, x: Floats) -> Floats:
        """The vector that stands for what was evaluated: in the box, on the simplex, whole."""
        inside = self._inside(x)
        encoded = self._space.encode(self._problem, self._space.decode(self._problem, inside))
        return inside if encoded is None else encoded
