"""Export of a candidate, and the model card that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evomerge import config, lineage
from evomerge.candidate import Candidate, Evaluated, Recipe, Split
from evomerge.errors import ExportError, ResumeError
from evomerge.merge.adapter_export import AdapterReport
from evomerge.merge.adapter_export import export_adapter as write_adapter
from evomerge.merge.build import Builder
from evomerge.merge.export import export as write
from evomerge.merge.folders import cache_folder
from evomerge.merge.parallel import cores
from evomerge.merge.pool import ModelPool
from evomerge.recipes.card import Shares, coefficients, front, listed, shares
from evomerge.recipes.mergekit.writing import Exported, exported
from evomerge.settings import StudySettings
from evomerge.store.port import StudyRecord, StudyStore
from evomerge.study import record as records

_SPLITS: tuple[Split, ...] = ("search", "selection", "report")


def export(
    study: StudyStore,
    out: Path,
    *,
    candidate: int | None = None,
    dtype: str | None = None,
    beside: Path | None = None,
) -> Candidate:
    """Rebuild a candidate from the pool (default: the final one, else the best) into the folder ``out``.

    ``beside`` is the database's folder, where the pool is looked for if the study's own folder is gone.

    Raises:
        ExportError: nothing to export, or ``out`` cannot be written.
        ResumeError: the pool's content is not what the study was made with.
        PoolError, RecipeError: it cannot be built.
    """
    found = _found(study, candidate, beside)
    one = found.candidate
    write(_builder(found), one.recipe, found.ancestors, out, card=_text(study, found), dtype=dtype)
    return one


def export_adapter(
    study: StudyStore,
    out: Path,
    *,
    candidate: int | None = None,
    dtype: str | None = None,
    rank: int | None = None,
    beside: Path | None = None,
) -> tuple[Candidate, AdapterReport]:
    """A candidate (default as in `export`) as a PEFT folder of at most that ``rank``.

    Raises:
        ExportError: nothing to export, the candidate is no adapter, or ``out`` cannot be written.
        ResumeError: the pool's content is not what the study was made with.
        PoolError, RecipeError: it cannot be built.
    """
    found = _found(study, candidate, beside)
    one, text = found.candidate, _text(study, found, "library_name: peft")
    builder, dtype = _builder(found), dtype or "float32"
    return one, write_adapter(builder, one.recipe, found.ancestors, out, card=text, dtype=dtype, rank=rank)


def for_mergekit(
    study: StudyStore, *, candidate: int | None = None, dtype: str | None = None, beside: Path | None = None
) -> tuple[Candidate, Exported]:
    """A candidate (default as in `export`) as a mergekit YAML.

    Raises:
        ExportError: nothing to export, or mergekit cannot say it.
        ResumeError: the pool's content is not what the study was made with.
        PoolError, RecipeError: it does not fit the pool.
    """
    found = _found(study, candidate, beside)
    flat = Builder(found.pool, "table", gram_cache=cache_folder())
    recipe = found.candidate.recipe
    return found.candidate, exported(flat, recipe, found.ancestors, found.settings.pool, dtype=dtype)


@dataclass(frozen=True)
class _Found:
    """A candidate, and what it is built from."""

    candidate: Candidate
    ancestors: tuple[Recipe, ...]
    settings: StudySettings
    pool: ModelPool


def _found(study: StudyStore, candidate: int | None, beside: Path | None) -> _Found:
    one = study.candidates((_chosen(study, candidate),))[0]
    settings = config.stored(study.record.settings)
    if not settings.pool.members:
        raise ExportError(
            f"the models of study {study.record.name!r} are on a server; its owner can build candidate {one.number} "
            f"(recipe {one.recipe.digest})"
        )
    pool = ModelPool.open(settings.pool, records.folder_of(study.record, beside))
    _same_pool(pool, study.record)
    return _Found(one, lineage.ancestry(one.recipe, frozenset(), study.recipes), settings, pool)


def _builder(found: _Found) -> Builder:
    merge = found.settings.merge
    return Builder(found.pool, merge.mode, merge.cache_mb << 20, cache_folder(), cores())


def _text(study: StudyStore, found: _Found, *lines: str) -> str:
    flat = Builder(found.pool, "table", gram_cache=cache_folder())
    weights = shares(flat, found.candidate.recipe, found.ancestors)
    return card(study, found.candidate, weights, len(found.ancestors), *lines)


def _chosen(study: StudyStore, candidate: int | None) -> int:
    summary = study.summary()
    for number in (candidate, summary.final, summary.best_number):
        if number is not None:
            return number
    raise ExportError(f"study {summary.name!r} has no scored candidate yet; run it first, or name one with --candidate")


def _same_pool(pool: ModelPool, record: StudyRecord) -> None:
    now = pool.digests()
    changed = [name for name, digest in record.pool.items() if now.get(name) != digest]
    if changed:
        raise ResumeError(
            f"pool content of {', '.join(changed)} is not what the study was made with, so its candidates cannot be "
            "built from it; put the original files back"
        )


def card(study: StudyStore, one: Candidate, found: Shares | None, ancestors: int, *lines: str) -> str:
    """The model card: what it is, how good it is, where it comes from and how to make it again.

    ``lines`` are more metadata for the hub.
    """
    record = study.record
    parents = ", ".join(f"#{parent}" for parent in one.parents) or "none: it is a start of the search"
    settings = config.stored(record.settings)
    sections = [
        front(*lines),
        f"# Candidate {one.number} of study {record.name}",
        f"A merge of {', '.join(record.pool)}, found by evomerge with the strategy {settings.strategy.name} (seed "
        f"{record.seed}). No training took place. `recipe.json` holds the exact recipe with its ancestry.",
        f"## Scores\n\n{_scores(study, one.number)}",
        f"## Lineage\n\n- parents: {parents}\n- generation: {one.generation}\n- origin: {one.origin or '-'}\n"
        f"- ancestors: {ancestors}\n- recipe digest: `{one.recipe.digest}`",
        f"## Coefficients\n\n{coefficients(found)}",
        f"## Pool\n\n{listed(record.pool)}",
        f"## Versions\n\n{listed(record.versions)}",
        f"## Study file\n\n```yaml\n{record.config.strip()}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _scores(study: StudyStore, number: int) -> str:
    lines = ["| split | items | objective | value |", "|---|---|---|---|"]
    settings = config.stored(study.record.settings)
    for split in _SPLITS:
        found: Evaluated | None = next(iter(study.scores(split, (number,), items=False)), None)
        if found is not None and found.score is not None:
            size = settings.splits.size(split)
            lines += [f"| {split} | {size} | {name} | {value:.6g} |" for name, value in found.score.objectives]
    return "\n".join(lines) if len(lines) > 2 else "It has not been scored."
