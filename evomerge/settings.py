"""What a study file says, section by section, as frozen values. `evomerge.config` reads the file into these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from evomerge.fitness import Splits


@dataclass(frozen=True)
class PoolSettings:
    """The models to merge. Paths are relative to the study file.

    ``members`` maps a short name to a checkpoint folder (or one ``.safetensors`` file); ``base`` is the folder of
    their common ancestor. ``order`` lists tensor-name patterns that decide the order of the parameter vector (default:
    natural order of names). ``groups`` maps a group name to the patterns of its tensors (default: one group, ``all``).
    ``exclude`` are patterns of tensors that are not merged but copied from the base, or else the first member.
    """

    members: dict[str, str]
    base: str | None = None
    order: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A plugin by name (``m2n2`` or ``package.module:Name``) and its own settings, already validated."""

    name: str
    settings: Any


@dataclass(frozen=True)
class BudgetSettings:
    """When to stop: after so many evaluations on the search split, the seeds' included."""

    evaluations: Annotated[int, Gt(0)]


@dataclass(frozen=True)
class MergeSettings:
    """How candidates are built.

    ``table`` keeps every recipe as coefficients over the pool and streams the pool once per candidate; ``dense``
    keeps recent candidates' whole float32 vectors in a cache of ``cache_mb`` MB, which mutation needs; ``auto`` is
    dense for pools that are small.
    """

    mode: Literal["auto", "table", "dense"] = "auto"
    cache_mb: Annotated[int, Gt(0)] = 512


@dataclass(frozen=True)
class ExecutorSettings:
    """Where candidates are scored. Nothing here changes a study's results.

    ``threads`` is the number of torch threads per worker; ``time_limit`` the seconds one evaluation may take.
    """

    kind: Literal["inline", "ray"] = "inline"
    workers: Annotated[int, Gt(0)] = 2
    threads: Annotated[int, Gt(0)] = 1
    time_limit: Annotated[float, Gt(0)] | None = None
    ray_address: str | None = None
    cpus: Annotated[float, Ge(0)] = 1.0
    gpus: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True)
class StoreSettings:
    """Where the study is kept. ``url`` is an SQLAlchemy address; default: an SQLite file beside the study file."""

    url: str | None = None
    commit_every: Annotated[float, Ge(0), Le(60)] = 0.1
    lease_seconds: Annotated[float, Gt(0)] = 60.0
    snapshot_every: Annotated[int, Gt(0)] = 1000
    keep_losses: bool = True


@dataclass(frozen=True)
class StudySettings:
    """A whole study file.

    ``window`` is how many candidates may be out at once; it is part of the search (parents come from an archive that is
    ``window - 1`` results old), so it never follows the number of workers. ``telling`` says whether results are told
    in the order asked (the same study for any number of workers) or as they come (recorded, so it resumes exactly).
    ``objective`` picks the fitness's objective that matters most (default: its first); ``finalists`` is how many of
    the best on the search split are scored on the selection split.
    """

    study: str
    pool: PoolSettings
    fitness: Choice
    strategy: Choice
    splits: Splits
    budget: BudgetSettings
    seed: Annotated[int, Ge(0)] = 0
    objective: str | None = None
    window: Annotated[int, Gt(0)] = 8
    telling: Literal["asked", "completion"] = "asked"
    finalists: Annotated[int, Gt(0)] = 10
    merge: MergeSettings = field(default_factory=MergeSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
