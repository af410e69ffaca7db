"""Everything that must be right before a study begins or goes on: pool, fitness, objectives, problem, strategy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from evomerge import plugins
from evomerge.blackbox import BlackBox, RemotePool
from evomerge.candidate import Split
from evomerge.errors import ConfigError, PluginError, nearest
from evomerge.fitness import Fitness
from evomerge.merge.pool import ModelPool
from evomerge.parameter import Declaration
from evomerge.settings import PoolSettings, StudySettings
from evomerge.space import Space
from evomerge.store.port import StudyRecord
from evomerge.strategy import Objective, Problem
from evomerge.study import record as records
from evomerge.study.record import Given


@dataclass(frozen=True, eq=False)
class Setup:
    """A study that is ready to begin: what it is, and the opened parts that checking it needed."""

    settings: StudySettings
    root: Path
    pool: ModelPool | RemotePool
    fitness: Fitness
    problem: Problem
    record: StudyRecord

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have items."""
        names: tuple[Split, ...] = ("search", "selection", "report")
        return tuple(name for name in names if self.settings.splits.ranges(name))


def prepare(settings: StudySettings, root: Path, text: str, given: Given | None = None) -> Setup:
    """Open and check everything that a study needs; nothing is written.

    Args:
        settings: of the study file, with what the command line gave already in place.
        root: the folder that paths are relative to.
        text: the study file's text, to be kept.
        given: what the command line gave.

    Raises:
        EvomergeError: the first thing that is wrong: pool, fitness, splits, labels, objective or strategy.
    """
    try:
        return _prepare(settings, root, text, given or Given())
    except ImportError as error:
        raise PluginError(f"fitness {settings.fitness.name!r} cannot work here; {plugins.extra_for(error)}") from error


def _prepare(settings: StudySettings, root: Path, text: str, given: Given) -> Setup:
    fitness = fitness_of(settings, root)
    pool = _pool(settings, root, fitness)
    objectives = _objectives(settings, fitness)
    fitness.check(Path() if isinstance(pool, RemotePool) else pool.reference_folder)
    problem = Problem(
        seed=settings.seed,
        members=pool.members,
        groups=pool.groups,
        objectives=objectives,
        items=fitness.items("search"),
        base=pool.base,
        operators=declarations(settings.strategy.settings),
        losses=fitness.losses,
        parts=fitness.parts,
        slopes=fitness.slopes,
        noisy=fitness.noisy,
    )
    records.strategy_of(settings, problem)
    data, versions = dict(fitness.fingerprint()), {}
    if isinstance(pool, RemotePool):
        versions = pool.versions
    else:
        pool.check_finite()
        data |= pool.statistics_digests()
    record = records.make(
        settings, text, root, problem, pool=pool.digests(), data=data, given=given, elsewhere=versions
    )
    return Setup(settings, root, pool, fitness, problem, record)


def _pool(settings: StudySettings, root: Path, fitness: Fitness) -> ModelPool | RemotePool:
    """The study's models, or those that its fitness brings."""
    if isinstance(fitness, BlackBox):
        if settings.pool != PoolSettings():
            raise ConfigError(f"fitness {settings.fitness.name!r} brings its own pool; leave out the study's pool")
        return fitness.pool()
    if settings.executor.kind == "threads":
        raise ConfigError(
            f"executor.kind is threads, but fitness {settings.fitness.name!r} scores in this process; use inline or ray"
        )
    pool = ModelPool.open(settings.pool, root)
    pool.check()
    return pool


def declarations(settings: Any) -> tuple[Declaration, ...]:
    """What the operators declare that the search spaces anywhere in a strategy's settings are made of.

    Raises:
        ConfigError: there is no such operator.
    """
    names = dict.fromkeys(name for space in _spaces(settings) for name in space.operators())
    try:
        return tuple(plugins.load("operators", name).declaration(name) for name in names)
    except PluginError as error:
        raise ConfigError(f"strategy's space: {error}") from error


def _spaces(value: Any) -> Iterator[Space]:
    """Every search space in a tree of settings."""
    if isinstance(value, Space):
        yield value
    elif is_dataclass(value):
        for one in fields(value):
            yield from _spaces(getattr(value, one.name))
    elif isinstance(value, tuple):
        for inner in value:
            yield from _spaces(inner)


def fitness_of(settings: StudySettings, root: Path) -> Fitness:
    """The study's fitness, not yet having read anything."""
    kind: Any = plugins.fitness(settings.fitness.name)
    fitness: Fitness = kind(settings.fitness.settings, settings.splits)
    fitness.root = root
    return fitness


def _objectives(settings: StudySettings, fitness: Fitness) -> tuple[Objective, ...]:
    """The fitness's objectives, the study's main one first."""
    wanted = settings.objective
    names = [one.name for one in fitness.objectives]
    if wanted is None:
        return fitness.objectives
    if wanted not in names:
        raise ConfigError(
            f"objective {wanted!r} is none of fitness {settings.fitness.name!r}; "
            f"{nearest(wanted, names)}it has {', '.join(names)}"
        )
    return tuple(sorted(fitness.objectives, key=lambda one: one.name != wanted))
