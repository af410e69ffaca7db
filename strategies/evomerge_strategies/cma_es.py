"""CMA-ES over merge coefficients, by pycma (Hansen, Akimoto, Baudis), made exactly resumable.

pycma's object is never saved. What is kept is what it was told, generation by generation; a fresh object that is asked
and told the same continues bit for bit, because its normal draws come from our named stream, one stream per call.
Generations that fail to improve for good (pycma's stopping rules) begin a new run from a random point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem, Strategy, require_members
from evomerge.streams import stream
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.seeds import pool_seeds

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CMAESSettings:
    """CMA-ES's settings.

    Attributes:
        space: what the coefficients are.
        start: first mean, the same in every dimension; default: the middle of the space's box.
        sigma: first step size; default: 0.2 of the box.
        popsize: candidates in a generation; default: 4 + floor(3 ln n).
        diagonal: learn variances only (separable CMA-ES), for 50 dimensions and more.
        restart: begin a new run from a random point when pycma sees no more progress; off: go on to the budget's end.
        score_members: score the pool's members first.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    space: AnySpace = field(default_factory=WeightSpace)
    start: float | None = None
    sigma: Annotated[float, Gt(0)] | None = None
    popsize: Annotated[int, Gt(2)] | None = None
    diagonal: bool = False
    restart: bool = True
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class CMAESState:
    """All that was told: the losses of complete ``generations``, and of the ``current`` one.

    A loss is the main objective turned so that smaller is better; ``nan`` is not yet told, ``inf`` a failure.
    """

    asked: int = 0
    told: int = 0
    generations: tuple[Floats, ...] = ()
    current: tuple[float, ...] = ()
    hall: Hall = ()


class CMAES(Strategy[CMAESState]):
    """See the module's docstring."""

    Settings = CMAESSettings
    State = CMAESState

    def __init__(self, settings: CMAESSettings, problem: Problem) -> None:
        require_members(problem, 1, "CMA-ES")
        settings.space.check(problem)
        self._size = settings.space.size(problem)
        if self._size < 2:
            raise StrategyError("CMA-ES needs at least 2 dimensions; add members, groups, or use random search")
        self._s, self._problem = settings, problem
        self._seeds = pool_seeds(problem) if settings.score_members else ()
        self._popsize = settings.popsize or 4 + math.floor(3 * math.log(self._size))
        self._engine: _Engine | None = None  # a cache: rebuilt from any state

    def start(self) -> CMAESState:
        """Nothing asked."""
        return CMAESState()

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: CMAESState, room: int) -> tuple[CMAESState, tuple[Candidate, ...]]:
        """The pool's members, then what is left of the generation; nothing while a full generation is out."""
        candidates: list[Candidate] = []
        current = state.current
        for number in range(state.asked, state.asked + max(room, 0)):
            if number < len(self._seeds):
                candidates.append(self._seeds[number])
                continue
            if len(current) == self._popsize:
                break
            x = self._at(state.generations).proposals[len(current)]
            recipe = self._s.space.decode(self._problem, x)
            origin = "cma"
            candidates.append(Candidate(number, recipe, generation=1 + len(state.generations), origin=origin))
            current = (*current, math.nan)
        return replace(state, asked=state.asked + len(candidates), current=current), tuple(candidates)

    def _at(self, generations: tuple[Floats, ...]) -> _Engine:
        """An optimizer that was told exactly these generations: the cached one moved on, or a fresh one replayed."""
        engine = self._engine
        if engine is None or not engine.precedes(generations):
            engine = _Engine(self._s, self._problem, self._size, self._popsize)
        for losses in generations[len(engine.told) :]:
            engine.tell(losses)
        self._engine = engine
        return engine

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: CMAESState, evaluated: Evaluated) -> CMAESState:
        """Note the loss; the last of a generation closes it."""
        objective = self._problem.objectives[0]
        hall = enter(state.hall, evaluated, objective, self._s.hall_of_fame)
        state = replace(state, told=state.told + 1, hall=hall)
        position = evaluated.candidate.number - len(self._seeds) - self._popsize * len(state.generations)
        if evaluated.candidate.number < len(self._seeds):
            return state
        loss = math.inf if evaluated.score is None else -objective.gain(evaluated.score[objective.name])
        current = (*state.current[:position], loss, *state.current[position + 1 :])
        if len(current) == self._popsize and not any(math.isnan(value) for value in current):
            closed = np.array(current)
            closed.flags.writeable = False
            return replace(state, generations=(*state.generations, closed), current=())
        return replace(state, current=current)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: CMAESState) -> tuple[int | None, ...]:
        """The numbers of the last complete generation."""
        if not state.generations:
            return ()
        first = len(self._seeds) + self._popsize * (len(state.generations) - 1)
        return tuple(range(first, first + self._popsize))

    def finalists(self, state: CMAESState) -> tuple[int, ...]:
        """The best ones told, best first."""
        return tuple(number for _, number in state.hall)

    def diagnostics(self, state: CMAESState) -> dict[str, float]:
        """Step size, axis ratio of the covariance matrix, and how many runs were begun."""
        return self._at(state.generations).diagnostics()


@dataclass
class _Normal:
    """pycma's ``randn``: call k of run r draws from stream (seed, k, "cma:r"). A class, so that it can be compared."""

    seed: int
    run: int
    calls: int = 0

    def __call__(self, *shape: int) -> Any:
        self.calls += 1
        return stream(self.seed, self.calls, f"cma:{self.run}").standard_normal(shape)


class _Engine:
    """A pycma optimizer, the generations it was told, and the proposals of the next one."""

    def __init__(self, settings: CMAESSettings, problem: Problem, size: int, popsize: int) -> None:
        self._s, self._problem, self._size, self._popsize = settings, problem, size, popsize
        self.told: tuple[Floats, ...] = ()
        self._run = -1
        self.proposals: list[Floats] = []
        self._begin()

    def precedes(self, generations: tuple[Floats, ...]) -> bool:
        """Whether this optimizer was told a beginning of these very generations."""
        return len(self.told) <= len(generations) and all(
            mine is theirs for mine, theirs in zip(self.told, generations, strict=False)
        )

    def tell(self, losses: Floats) -> None:
        """Move on by one generation. Failures rank behind everything scored."""
        finite = losses[np.isfinite(losses)]
        worst = finite.max() + 1.0 if finite.size else 0.0
        self._optimizer.tell(self.proposals, np.where(np.isfinite(losses), losses, worst).tolist())
        self.told = (*self.told, losses)
        if self._s.restart and self._optimizer.stop():
            self._begin()
        else:
            self.proposals = self._optimizer.ask()

    def diagnostics(self) -> dict[str, float]:
        optimizer = self._optimizer
        return {
            "sigma": float(optimizer.sigma),
            "axis_ratio": float(optimizer.D.max() / optimizer.D.min()),
            "runs": self._run + 1.0,
        }

    def _begin(self) -> None:
        """A new run: the first from ``start``, later ones from a random point of the box."""
        from cma import CMAEvolutionStrategy

        self._run += 1
        low, high = self._s.space.box(self._problem)
        x0 = self._s.space.start(self._problem) if self._s.start is None else np.full(self._size, self._s.start)
        if self._run:
            x0 = stream(self._problem.seed, self._run, "cma:restart").uniform(low, high, self._size)
        sigma = self._s.sigma or 0.2 * float((high - low).max())
        self._optimizer = CMAEvolutionStrategy(x0, sigma, self._options(low, high))
        self.proposals = self._optimizer.ask()

    def _options(self, low: Floats, high: Floats) -> dict[str, Any]:
        spans = high - low
        kinds = [dimension.kind for dimension in self._s.space.dimensions(self._problem)]
        return {
            "popsize": self._popsize,
            "bounds": [low, high] if self._s.space.limited else None,
            "CMA_stds": None if (spans == spans[0]).all() else spans / spans.max(),
            "integer_variables": [at for at, kind in enumerate(kinds) if kind == "integer"],
            "CMA_diagonal": self._s.diagonal,
            "randn": _Normal(self._problem.seed, self._run),
            "seed": math.nan,  # do not touch numpy's global generator
            "tolflatfitness": 20,  # a plateau of equal scores is common with few items
            "tolfun": 0,
            "tolfunhist": 0,
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
            "signals_filename": "",  # never read options from a file
        }
