"""Optuna's samplers (Akiba et al., KDD 2019) over any search space, made exactly resumable.

An in-memory study is rebuilt from what was asked and told. TPE, GP and random search need the trials alone, so each of
their proposals comes from a fresh sampler seeded for the candidate's number, and resuming costs next to nothing; the
others are asked and told everything again. Candidates that are out are running trials (TPE and GP keep away from
them), failed ones are pruned trials (TPE ranks them last, the others ignore them). Optuna knows bounded numbers only:
of a space without bounds it searches the box.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Gt

from evomerge.errors import StrategyError, nearest
from evomerge.space import AnySpace, Dimension, WeightSpace
from evomerge.strategy import Problem
from evomerge.streams import stream
from evomerge_strategies.library import Engine, Floats, LibraryStrategy, Result

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Name = Literal["tpe", "gp", "cma", "nsga2", "nsga3", "random", "qmc"]


@dataclass(frozen=True, slots=True)
class _Sampler:
    """One of Optuna's samplers.

    Attributes:
        kind: its class in ``optuna.samplers``.
        options: those of its arguments that a study file may give, and their types.
        many: whether it can search several objectives.
        memoryless: whether its proposals follow from the trials and its seed alone.
        needs: modules that it imports beside Optuna, each with what to install.
    """

    kind: str
    options: dict[str, type]
    many: bool = True
    memoryless: bool = False
    needs: dict[str, str] = field(default_factory=dict)


_GENETIC = {"population_size": int, "mutation_prob": float, "crossover_prob": float, "swapping_prob": float}
_SAMPLERS: dict[Name, _Sampler] = {
    "tpe": _Sampler(
        "TPESampler",
        {"n_startup_trials": int, "n_ei_candidates": int, "multivariate": bool, "group": bool, "constant_liar": bool},
        memoryless=True,
    ),
    "gp": _Sampler(
        "GPSampler",
        {"n_startup_trials": int, "deterministic_objective": bool},
        memoryless=True,
        needs={"torch": "evomerge[worker]", "scipy": "evomerge[optuna]"},
    ),
    "cma": _Sampler(
        "CmaEsSampler",
        {
            "n_startup_trials": int,
            "popsize": int,
            "use_separable_cma": bool,
            "with_margin": bool,
            "lr_adapt": bool,
        },
        many=False,
        needs={"cmaes": "evomerge[optuna]"},
    ),
    "nsga2": _Sampler("NSGAIISampler", _GENETIC),
    "nsga3": _Sampler("NSGAIIISampler", _GENETIC | {"dividing_parameter": int}),
    "random": _Sampler("RandomSampler", {}, memoryless=True),
    "qmc": _Sampler(
        "QMCSampler",
        {"qmc_type": str, "scramble": bool},
        needs={"scipy": "evomerge[optuna]"},
    ),
}


@dataclass(frozen=True)
class OptunaSettings:
    """Which of Optuna's samplers, and where it searches.

    Attributes:
        sampler: tree-structured Parzen estimator, Gaussian process, CMA-ES, NSGA-II, NSGA-III, uniform draws, or a
            quasi-Monte Carlo sequence.
        options: the sampler's own, as in Optuna's documentation, such as ``n_startup_trials`` or ``population_size``.
        space: what the coefficients are.
        objectives: search the ``main`` objective or ``all`` of the fitness's; default: all for NSGA, else the main one.
        score_members: score the pool's members first; the sampler is told of those that the space can express.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    sampler: Name = "tpe"
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    space: AnySpace = field(default_factory=WeightSpace)
    objectives: Literal["main", "all"] | None = None
    score_members: bool = True
    hall_of_fame: Annotated[int, Gt(0)] = 10


class OptunaSearch(LibraryStrategy):
    """See the module's docstring."""

    Settings = OptunaSettings
    libraries = ("optuna", "cmaes", "scipy")

    def __init__(self, settings: OptunaSettings, problem: Problem) -> None:
        sampler = _SAMPLERS[settings.sampler]
        _installed(settings.sampler, sampler)
        _check_options(settings)
        every = settings.objectives == "all" or (settings.objectives is None and settings.sampler.startswith("nsga"))
        if every and not sampler.many:
            raise StrategyError(f"optuna's {settings.sampler} searches one objective; set objectives: main")
        super().__init__(
            f"optuna {settings.sampler}",
            settings.space,
            problem,
            score_members=settings.score_members,
            hall_of_fame=settings.hall_of_fame,
            objectives=len(problem.objectives) if every else 1,
        )
        if settings.sampler == "cma" and settings.space.size(problem) < 2:
            raise StrategyError("CMA-ES needs at least 2 dimensions; add members, groups, or take another sampler")
        self.needs_whole = len(self._objectives) > 1  # type: ignore[misc]  # of one objective estimates will do
        self._s = settings
        self._engine()  # options that Optuna itself refuses come to light now

    def _engine(self) -> Engine:
        dimensions = self._s.space.dimensions(self._problem)
        return _Study(self._s, dimensions, self._problem.seed, len(self._objectives))


class _Study(Engine):
    """An Optuna study in memory. Its trials are numbered by Optuna; ``_trials`` maps our numbers to theirs."""

    def __init__(self, settings: OptunaSettings, dimensions: tuple[Dimension, ...], seed: int, objectives: int) -> None:
        import optuna

        self._s, self._dimensions, self._seed = settings, dimensions, seed
        self._sampler = _SAMPLERS[settings.sampler]
        self._space = {dimension.name: _distribution(dimension) for dimension in dimensions}
        self._trials: dict[int, int] = {}
        with _quiet():
            self._study = optuna.create_study(sampler=self._seeded(0), directions=["minimize"] * objectives)

    @property
    def origin(self) -> str:
        return self._s.sampler

    def propose(self, number: int) -> Floats:
        with _quiet():
            if self._sampler.memoryless:
                self._study.sampler = self._seeded(number)
            trial = self._study.ask(self._space)
        self._trials[number] = trial.number
        return np.array([dimension.inner(trial.params[dimension.name]) for dimension in self._dimensions])

    def offer(self, number: int, x: Floats) -> None:
        from optuna.trial import TrialState, create_trial

        natural = [dimension.natural(float(value)) for dimension, value in zip(self._dimensions, x, strict=True)]
        values = {d.name: int(v) if d.kind == "integer" else v for d, v in zip(self._dimensions, natural, strict=True)}
        self._trials[number] = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=values, distributions=self._space))

    def recall(self, number: int, x: Floats) -> Floats:
        if not self._sampler.memoryless:
            return self.propose(number)
        self.offer(number, x)
        return x

    def tell(self, result: Result) -> None:
        from optuna.trial import TrialState

        if result.number not in self._trials:
            return
        trial = self._trials.pop(result.number)
        if result.losses:
            self._study.tell(trial, result.losses)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def _seeded(self, number: int) -> BaseSampler:
        """A fresh sampler for one proposal.

        Raises:
            StrategyError: Optuna refuses the options.
        """
        import optuna

        seed = int(stream(self._seed, number, "optuna").integers(2**32))
        kind = getattr(optuna.samplers, self._sampler.kind)
        try:
            made: BaseSampler = kind(seed=seed, **self._s.options)
        except ValueError as error:
            raise StrategyError(f"optuna's {self._s.sampler} refuses its options: {error}") from error
        return made


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if dimension.kind == "integer":
        return IntDistribution(math.ceil(dimension.low), math.floor(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log")


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its notes and its warnings about what it calls experimental."""
    from optuna import logging
    from optuna.exceptions import ExperimentalWarning

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)


def _installed(name: str, sampler: _Sampler) -> None:
    for module, install in {"optuna": "evomerge[optuna]", **sampler.needs}.items():
        if find_spec(module) is None:
            raise StrategyError(f'optuna\'s {name} needs {module}, which is not installed: pip install "{install}"')


def _check_options(settings: OptunaSettings) -> None:
    known = _SAMPLERS[settings.sampler].options
    for name, value in settings.options.items():
        if name not in known:
            has = ", ".join(known) or "none"
            raise StrategyError(
                f"options names {name!r}, but optuna's {settings.sampler} has {has}; {nearest(name, known)}correct it"
            )
        fits = type(value) is known[name] or (known[name] is float and type(value) is int)
        if not fits or (type(value) is int and value < 1):
            raise StrategyError(f"options.{name} must be a {_WORDS[known[name]]}, not {value!r}")


_WORDS = {int: "whole number above 0", float: "number", bool: "true or false", str: "word"}
