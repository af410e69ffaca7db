"""A server file opened and checked: the pool, what is said of it, and what evaluates candidates."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evomerge import config, plugins
from evomerge.blackbox import BlackBox
from evomerge.candidate import Split
from evomerge.errors import ConfigError, PluginError, RecipeError
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Ancestry, Executor
from evomerge.fitness import Fitness
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import ModelPool
from evomerge.serve.rules import Rules
from evomerge.serve.settings import ServeSettings
from evomerge.settings import PoolSettings
from evomerge.wire import PROTOCOL, Limits, Offer

_LIBRARIES = ("evomerge", "numpy", "torch", "safetensors", "transformers", "scikit-learn")
_SPLITS: tuple[Split, ...] = ("search", "selection", "report")


@dataclass(frozen=True)
class Opened:
    """A pool that is ready to be served."""

    settings: ServeSettings
    offer: Offer
    rules: Rules
    factory: EvaluatorFactory

    def executor(self, ancestry: Ancestry) -> Executor:
        """What scores candidates.

        Raises:
            ExecutorError: it cannot be started.
        """
        chosen = self.settings.executor
        if chosen.kind == "inline":
            from evomerge.executor.inline import InlineExecutor

            return InlineExecutor(self.factory, ancestry)
        from evomerge.executor.ray import RayExecutor

        return RayExecutor(
            self.factory,
            ancestry,
            workers=chosen.workers,
            threads=chosen.threads,
            cpus=chosen.cpus,
            gpus=chosen.gpus,
            address=chosen.ray_address,
            time_limit=chosen.time_limit,
        )


def read(path: Path) -> config.SettingsFile[ServeSettings]:
    """Read and validate a server file.

    Raises:
        ConfigError: it cannot be read, or holds errors; all of them are listed.
    """
    return config.read_as(ServeSettings, path, "server file", "docs/black-box.md says how to write one")


def open_pool(settings: ServeSettings, root: Path) -> Opened:
    """Open and check everything that the server needs, before anybody asks.

    Raises:
        EvomergeError: the first thing that is wrong.
    """
    try:
        return _open(settings, root)
    except ImportError as error:
        raise PluginError(f"fitness {settings.fitness.name!r} cannot work here; {plugins.extra_for(error)}") from error


def _open(settings: ServeSettings, root: Path) -> Opened:
    _check(settings)
    if settings.anonymous:
        settings = replace(settings, pool=_renamed(settings.pool))
    fitness = _fitness(settings, root)
    pool = ModelPool.open(settings.pool, root)
    pool.check()
    fitness.check(pool.reference_folder)
    pool.check_finite()
    offer = _offer(settings, pool, fitness)
    factory = EvaluatorFactory(
        root=root,
        pool=pool.settings,
        merge=settings.merge,
        fitness=settings.fitness,
        splits=settings.splits,
        threads=settings.executor.threads,
        order="natural",
    )
    return Opened(settings, offer, Rules(pool, settings.operators, offer.limits), factory)


def _check(settings: ServeSettings) -> None:
    """Refuse what a server cannot do."""
    executor = settings.executor
    if executor.kind == "threads":
        raise ConfigError("executor.kind is threads, but a server scores candidates itself; use inline or ray")
    if executor.kind == "inline" and executor.time_limit is not None:
        raise ConfigError("executor.time_limit needs executor.kind: ray, whose workers can be ended")
    if not settings.operators:
        raise ConfigError("operators is empty; name at least one merge operator, such as linear")
    for name in settings.operators:
        if ":" in name:
            raise ConfigError(f"operators: {name!r} is no registered name; register it as an entry point")
        try:
            operator(name)
        except (PluginError, RecipeError) as error:
            raise ConfigError(f"operators: {error}") from error


def _fitness(settings: ServeSettings, root: Path) -> Fitness:
    kind: Any = plugins.fitness(settings.fitness.name)
    fitness: Fitness = kind(settings.fitness.settings, settings.splits)
    fitness.root = root
    if isinstance(fitness, BlackBox):
        raise ConfigError(
            f"fitness {settings.fitness.name!r} has its models elsewhere; serve one that scores them here"
        )
    return fitness


def _renamed(pool: PoolSettings) -> PoolSettings:
    """The pool with its members called m1, m2, ... wherever they are named."""
    names = {name: f"m{number}" for number, name in enumerate(pool.members, 1)}
    return replace(
        pool,
        members={names[name]: place for name, place in pool.members.items()},
        layers={names.get(name, name): ranges for name, ranges in pool.layers.items()},
        vocabulary=names.get(pool.vocabulary, pool.vocabulary),
        tokens={
            token: replace(rule, source=rule.source and names.get(rule.source, rule.source))
            for token, rule in pool.tokens.items()
        },
        statistics={names.get(name, name): kinds for name, kinds in pool.statistics.items()},
    )


def _offer(settings: ServeSettings, pool: ModelPool, fitness: Fitness) -> Offer:
    limits, sections = settings.limits, config.canonical_text(settings.merge)
    scored_by = config.canonical_text(settings.fitness), config.canonical_text(settings.splits)
    content = [*pool.digests().items(), *fitness.fingerprint().items(), *pool.statistics_digests().items()]
    return Offer(
        protocol=PROTOCOL,
        members=pool.members,
        base=pool.base,
        groups=pool.groups,
        operators=settings.operators,
        objectives=fitness.objectives,
        splits=settings.splits,
        items={split: fitness.items(split) for split in _SPLITS if settings.splits.ranges(split)},
        losses=fitness.losses,
        parts=fitness.parts,
        noisy=fitness.noisy,
        digest=_digest((repr(pool.layout), sections, *scored_by, repr(content))),
        workers=settings.executor.workers if settings.executor.kind == "ray" else 1,
        versions=_versions(),
        limits=Limits(
            body_bytes=limits.body_mb << 20,
            segments=limits.segments,
            values=limits.values,
            ancestors=limits.ancestors,
            evaluations=limits.evaluations,
            items=limits.items,
        ),
    )


def _digest(texts: Iterable[str]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for text in texts:
        total.update(f"{len(text)}:{text}".encode())
    return total.hexdigest()


def _versions() -> dict[str, str]:
    """Versions of whatever may change a score."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
