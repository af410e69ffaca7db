"""Optimizers of nevergrad (Rapin, Teytaud et al.), by their names in its registry, made exactly resumable.

An optimizer draws its random numbers from one generator seeded by the study; a resumed study asks and tells a fresh one
everything again. Some of nevergrad's optimizers draw from numpy's global generator as well: every one is rehearsed
twice before the study, with other global seeds, and refused if it proposes other candidates. It learns from its own
proposals only, not from the pool's members.

``NGOpt`` and its kin choose an optimizer by budget, ``num_workers`` and dimension, and not always the expected one
(with one worker often Cobyla, which spends the first evaluations on a simplex); candidates' origins say which. Where
they choose one with a metamodel, nevergrad 1.0.12 fails beside numpy 2.4; this shows in the rehearsal.
"""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Gt

from evomerge.candidate import Candidate
from evomerge.errors import StrategyError, nearest
from evomerge.space import AnySpace, WeightSpace
from evomerge.strategy import Problem
from evomerge.streams import stream
from evomerge_strategies.library import Engine, Floats, LibraryState, LibraryStrategy, Result

REHEARSED = 100
"""So many proposals are compared before a study."""

T = TypeVar("T")


@dataclass(frozen=True)
class NevergradSettings:
    """Which of nevergrad's optimizers, and where it searches.

    Attributes:
        optimizer: a name of nevergrad's registry: ``DE``, ``PSO``, ``TBPSA`` (for noise), ``OnePlusOne``, ``CMA``,
            ``Cobyla``, ``NGOpt``, ...
        budget: for how many evaluations it is to plan, the pool's members not counted.
        num_workers: how many candidates it may have out at once; the study's window does no more. Sequential ones
            (``Cobyla``, ``NelderMead``, ``Powell``, ``SQP``, ...) take 1.
        space: what the coefficients are.
        start: where to begin, the same in every dimension; default: the best that an earlier stage of the study found
            and the space can express, or else the space's own.
        score_members: score the pool's members first.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    optimizer: str
    budget: Annotated[int, Gt(0)]
    num_workers: Annotated[int, Gt(0)] = 1
    space: AnySpace = field(default_factory=WeightSpace)
    start: float | None = None
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


class NevergradSearch(LibraryStrategy):
    """See the module's docstring."""

    Settings = NevergradSettings
    libraries = ("nevergrad", "scipy", "bayesian-optimization")

    def __init__(self, settings: NevergradSettings, problem: Problem) -> None:
        super().__init__(
            f"nevergrad {settings.optimizer}",
            settings.space,
            problem,
            score_members=settings.score_members,
            hall_of_fame=settings.hall_of_fame,
            most=settings.num_workers,
        )
        _check_optimizer(settings)
        self._seed = int(stream(problem.seed, 0, "nevergrad").integers(2**32))
        self._plan = _Plan(settings.optimizer, settings.budget, settings.num_workers, _box(settings, problem))
        _rehearse(self._plan)

    def _engine(self) -> Engine:
        return _Optimizer(self._plan, self._seed)

    def ask(self, state: LibraryState, room: int) -> tuple[LibraryState, tuple[Candidate, ...]]:
        """The pool's members, then proposals for as long as the optimizer was to plan."""
        left = len(self._seeds) + self._plan.budget - state.asked
        return super().ask(state, min(room, left))

    def exhausted(self, state: LibraryState) -> str | None:
        """Some optimizers end with their budget, others go on at random: none is asked for more."""
        if state.asked < len(self._seeds) + self._plan.budget:
            return None
        return f"nevergrad's {self._plan.optimizer} has spent strategy.budget = {self._plan.budget}"


@dataclass(frozen=True, slots=True)
class _Axis:
    """A dimension in search units."""

    low: float
    high: float
    start: float
    whole: bool


@dataclass(frozen=True, slots=True)
class _Box:
    """The axes, and whether proposals must stay between their ends."""

    axes: tuple[_Axis, ...]
    limited: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that an optimizer is made from, but for its seed."""

    optimizer: str
    budget: int
    num_workers: int
    box: _Box


class _Optimizer(Engine):
    """A nevergrad optimizer. Numbers are searched in the unit box, whole ones as they are."""

    def __init__(self, plan: _Plan, seed: int) -> None:
        axes = plan.box.axes
        self._plan = plan
        self._smooth = [at for at, axis in enumerate(axes) if not axis.whole]
        self._whole = [at for at, axis in enumerate(axes) if axis.whole]
        self._low = np.array([axes[at].low for at in self._smooth])
        self._span = np.array([axes[at].high for at in self._smooth]) - self._low
        self._out: dict[int, Any] = {}
        self._best, self._worst = np.inf, -np.inf
        self._optimizer = self._call(lambda: self._made(seed))

    @property
    def origin(self) -> str:
        chosen = getattr(self._optimizer, "optim", None)  # what NGOpt and its kin chose
        return self._plan.optimizer if chosen is None else f"{self._plan.optimizer}: {chosen.name}"

    def propose(self, number: int) -> Floats:
        self._out[number] = candidate = self._call(self._optimizer.ask)
        smooth, *whole = candidate.value
        x = np.empty(len(self._plan.box.axes))
        x[self._smooth] = self._low + self._span * smooth
        x[self._whole] = whole
        return x

    def offer(self, number: int, x: Floats) -> None:
        """Nothing: not every optimizer can be told what it did not ask."""

    def tell(self, result: Result) -> None:
        candidate = self._out.pop(result.number, None)
        if candidate is not None:
            loss = self._loss(result)
            self._call(lambda: self._optimizer.tell(candidate, loss))

    def _loss(self, result: Result) -> float:
        """The loss; for a failure, one as far behind the worst as that is behind the best."""
        if not result.losses:
            apart = self._worst - self._best
            return 1e6 if apart < 0 else self._worst + (apart or 1.0)
        self._best, self._worst = min(self._best, result.losses[0]), max(self._worst, result.losses[0])
        return result.losses[0]

    def _made(self, seed: int) -> Any:
        import nevergrad

        box = self._plan.box
        starts = np.array([box.axes[at].start for at in self._smooth])
        smooth = nevergrad.p.Array(init=(starts - self._low) / self._span)
        if box.limited:
            smooth.set_bounds(0.0, 1.0)
        smooth.set_mutation(sigma=1 / 6)  # of the box, as nevergrad has it for bounded scalars
        axes = [box.axes[at] for at in self._whole]
        whole = [
            nevergrad.p.Scalar(init=axis.start, lower=axis.low, upper=axis.high).set_integer_casting() for axis in axes
        ]
        searched = nevergrad.p.Tuple(smooth, *whole)
        searched.random_state = np.random.RandomState(seed)  # nevergrad takes no other kind
        kind = nevergrad.optimizers.registry[self._plan.optimizer]
        return kind(searched, budget=self._plan.budget, num_workers=self._plan.num_workers)

    def _call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, done in a daemon thread, so that threads that it may begin are daemons as well.

        The sequential optimizers run in threads of their own, which would else keep an interrupted program alive.

        Raises:
            StrategyError: nevergrad raised anything at all.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as error:  # whatever a library of many hands may raise
                errors.append(error)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join()
        if errors:
            raise StrategyError(
                f"nevergrad's {self._plan.optimizer} cannot go on: {type(errors[0]).__name__}: {errors[0]}; name "
                "another optimizer, or other num_workers"
            ) from errors[0]
        return results[0]


def _box(settings: NevergradSettings, problem: Problem) -> _Box:
    space = settings.space
    starts = _start(space, problem) if settings.start is None else np.full(space.size(problem), settings.start)
    axes = []
    for dimension, start in zip(space.dimensions(problem), starts.tolist(), strict=True):
        low, high = dimension.span
        if space.limited and not low <= start <= high:
            raise StrategyError(f"start = {start:g} is outside of {dimension.name}: {low:g} to {high:g}")
        axes.append(_Axis(low, high, start, dimension.kind == "integer"))
    return _Box(tuple(axes), space.limited)


def _start(space: AnySpace, problem: Problem) -> Floats:
    low, high = space.box(problem)
    found = (x for recipe in problem.seeds if (x := space.encode(problem, recipe)) is not None)
    inside = (x for x in found if not space.limited or ((low <= x) & (x <= high)).all())
    return next(inside, space.start(problem))


def _check_optimizer(settings: NevergradSettings) -> None:
    """Refuse what nevergrad does not have, before it is made: it leaves halves of optimizers behind.

    Raises:
        StrategyError: no such optimizer, or a sequential one with several workers.
    """
    if find_spec("nevergrad") is None:
        raise StrategyError('nevergrad is not installed: pip install "evomerge[nevergrad]"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nevergrad
    registry, name = nevergrad.optimizers.registry, settings.optimizer
    if name not in registry:
        raise StrategyError(f"nevergrad has no optimizer {name!r}; {nearest(name, list(registry))}correct it")
    if settings.num_workers > 1 and registry[name].no_parallelization:
        raise StrategyError(f"nevergrad's {name} is sequential; set num_workers: 1, or name another optimizer")


@cache
def _rehearse(plan: _Plan) -> None:
    """Refuse an optimizer that does not propose the same again on a sphere.

    Raises:
        StrategyError: its proposals depend on a global generator.
    """
    if not np.array_equal(_proposals(plan, 1), _proposals(plan, 2)):
        raise StrategyError(
            f"nevergrad's {plan.optimizer} draws from a global random generator here, so that no study with it could "
            "be repeated or resumed; name another optimizer"
        )


def _proposals(plan: _Plan, global_seed: int) -> Floats:
    """What an optimizer proposes on a sphere while the global generators are seeded so; they are left as they were."""
    numpys, pythons = np.random.get_state(), random.getstate()
    np.random.seed(global_seed)
    random.seed(global_seed)
    try:
        optimizer = _Optimizer(plan, 0)
        proposals: list[Floats] = []
        for number in range(min(REHEARSED, plan.budget)):
            if number >= plan.num_workers:
                told = number - plan.num_workers
                optimizer.tell(Result(told, (float((proposals[told] ** 2).sum()),)))
            proposals.append(optimizer.propose(number))
        return np.array(proposals)
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
