"""A merge that is ready to be built: a recipe file or stored recipe, with the pool that it goes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.errors import ConfigError, ExportError
from evomerge.merge.build import Builder, Mode
from evomerge.merge.export import DTYPES, planned
from evomerge.merge.folders import cache_folder
from evomerge.merge.parallel import cores
from evomerge.merge.pool import BASE, ModelPool
from evomerge.recipes import file, stored
from evomerge.recipes.file import HUB, RecipeFile
from evomerge.recipes.mergekit.reading import imported, is_mergekit
from evomerge.recipes.resolve import Resolved, resolve
from evomerge.recipes.stored import StoredRecipe
from evomerge.settings import PoolSettings


@dataclass(frozen=True)
class Job:
    """A merge to build.

    Attributes:
        source: the file that says it.
        settings: the pool as the file has it.
        pool: the same, opened; jobs with the same models share it.
        resolved: the recipe.
        dtype: of the merged tensors; ``None``: as in the pool.
    """

    source: RecipeFile | StoredRecipe
    settings: PoolSettings
    pool: ModelPool
    resolved: Resolved
    dtype: str | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing before it is built."""
        notes = self.source.notes if isinstance(self.source, RecipeFile) else ()
        return (*notes, *self.resolved.warnings)

    @property
    def places(self) -> dict[str, str]:
        """Where each source is, as the file has it."""
        base = {} if self.settings.base is None or self.pool.base != BASE else {BASE: self.settings.base}
        return {**base, **self.settings.members}

    @property
    def reads(self) -> int:
        """Bytes of tensors in all sources."""
        sources = self.pool.checkpoints.values()
        return sum(entry.stop - entry.start for source in sources for entry in source.entries.values())

    @property
    def writes(self) -> int:
        """Bytes of tensors in the result."""
        return sum(plan.nbytes for plan in planned(self.pool, self.dtype))

    @property
    def mode(self) -> Mode:
        """How it is built: coefficients as far as they go, since a single merge gains nothing from whole vectors."""
        noisy = any(one.noise is not None for one in (self.resolved.recipe, *self.resolved.ancestors))
        return "auto" if noisy else "table"

    def builder(self, threads: int | None = None) -> Builder:
        """What builds it, by so many threads (default: as there are processors)."""
        return Builder(self.pool, self.mode, gram_cache=cache_folder(), threads=threads or cores())


def together(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs that can be built in one pass over the same models, lot by lot."""
    lots: dict[tuple[int, str | None, Mode], list[Job]] = {}
    for job in jobs:
        lots.setdefault((id(job.pool), job.dtype, job.mode), []).append(job)
    return list(lots.values())


def load(paths: Sequence[Path], pool: Path | None = None, dtype: str | None = None) -> list[Job]:
    """Read files, open the pools that they name and resolve every recipe.

    ``pool`` is the file that names the models of stored recipes; ``dtype`` goes before the files' own.

    Raises:
        ConfigError: a file cannot be read, or holds errors.
        ExportError: an unknown dtype.
        PoolError: models that cannot be read or do not fit together.
        ResumeError: a stored recipe was built from other models.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    sources = [_read(path) for path in paths]
    opened: list[tuple[PoolSettings, ModelPool]] = []
    jobs = []
    for source in sources:
        settings, root = _pool_of(source, pool)
        models = _opened(opened, settings, root)
        if isinstance(source, RecipeFile):
            jobs.append(Job(source, settings, models, resolve(source, models), dtype or source.dtype))
        else:
            source.check(models)
            jobs.append(Job(source, settings, models, Resolved(source.recipe, source.ancestors), dtype))
    return jobs


def _read(path: Path) -> RecipeFile | StoredRecipe:
    if path.suffix == ".json":
        return stored.read(path)
    text = file.text_of(path)
    if not is_mergekit(text):
        return file.read(path, text)
    found = imported(text, path, path.absolute().parent)
    return replace(file.read(path, found.text, f"{path} (as import-mergekit writes it)"), notes=found.notes)


def _pool_of(source: RecipeFile | StoredRecipe, pool: Path | None) -> tuple[PoolSettings, Path]:
    if isinstance(source, RecipeFile):
        return source.pool, source.root
    if pool is None:
        raise ConfigError(f"{source.path} does not say where its models are; name a study or recipe file with --pool")
    return stored.pool_of(pool), pool.absolute().parent


def _opened(opened: list[tuple[PoolSettings, ModelPool]], settings: PoolSettings, root: Path) -> ModelPool:
    """The pool, opened once for all that mean the same models."""
    located = _located(settings, root)
    for other, models in opened:
        if other == located:
            return models
    models = ModelPool.open(settings, root)
    models.check()
    opened.append((located, models))
    return models


def _located(settings: PoolSettings, root: Path) -> PoolSettings:
    """The settings with absolute paths."""

    def absolute(path: str) -> str:
        return path if path.startswith(HUB) else str((root / Path(path).expanduser()).resolve())

    return replace(
        settings,
        members={name: absolute(path) for name, path in settings.members.items()},
        base=None if settings.base is None else absolute(settings.base),
        statistics={
            name: {kind: absolute(one) if isinstance(one, str) else one for kind, one in kinds.items()}
            for name, kinds in settings.statistics.items()
        },
    )
