"""Export as an adapter: a resolved recipe as a PEFT folder, a few megabytes instead of a whole model."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from evomerge.candidate import Recipe
from evomerge.errors import ExportError, RecipeError
from evomerge.merge.adapters import peft
from evomerge.merge.adapters.compress import Compressed, smaller
from evomerge.merge.adapters.difference import Difference
from evomerge.merge.adapters.factors import Factors
from evomerge.merge.adapters.linear import LinearAdapter
from evomerge.merge.adapters.merged import MergedAdapter
from evomerge.merge.adapters.sources import Factored
from evomerge.merge.build import Builder
from evomerge.merge.cache import Vector
from evomerge.merge.export import DTYPES, flat_table, provenance, write_origin
from evomerge.merge.folders import new_folder
from evomerge.merge.layout import Slot
from evomerge.merge.tensorfile import Array, from_float32
from evomerge.merge.views.peft import CONFIG, WEIGHTS
from evomerge.merge.writer import Planned, aligned, write_file


@dataclass(frozen=True)
class AdapterJob:
    """An adapter to write.

    Attributes:
        recipe: what it is.
        ancestors: the recipe's whole ancestry, oldest first.
        out: the folder to write.
        card: the text of README.md, to which ranks and errors are added.
        dtype: of its tensors: float64, float32, float16 or bfloat16.
        rank: largest rank; ``None``: whatever it takes to be exact.
    """

    recipe: Recipe
    ancestors: Sequence[Recipe]
    out: Path
    card: str
    dtype: str = "float32"
    rank: int | None = None


@dataclass(frozen=True)
class AdapterReport:
    """What was written.

    Attributes:
        ranks: by name of the base's tensor.
        errors: ``||Delta W - B A|| / ||Delta W||`` of every tensor that a smaller rank approximates, before the
            rounding to the dtype; 1 for one that has changed, but that no adapter of the pool shows how to adapt.
        error: the same over all tensors together; 0 if every one is exact.
    """

    ranks: Mapping[str, int]
    errors: Mapping[str, float]
    error: float

    @property
    def text(self) -> str:
        """Ranks, and what they leave out."""
        ranks = sorted(set(self.ranks.values()))
        told = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        text = f"A LoRA of {told} in {len(self.ranks)} tensors, at a scale of 1."
        if self.errors:
            worst = max(self.errors, key=lambda name: self.errors[name])
            text += (
                f" It approximates the merge: relative error {self.error:.2%} over all tensors together, and at most "
                f"{self.errors[worst]:.2%} in one ({worst})."
            )
        return text


def export_adapter(
    builder: Builder,
    recipe: Recipe,
    ancestors: Sequence[Recipe],
    out: Path,
    *,
    card: str,
    dtype: str = "float32",
    rank: int | None = None,
) -> AdapterReport:
    """Write the recipe as an adapter of the pool's base, which PEFT loads, to the folder ``out``.

    Recipes of operators on factors, and linear combinations of adapters, are exact; ``rank`` compresses them. Any other
    difference from the base needs a ``rank``, at which each tensor is approximated. The whole adapter is in memory
    before it is written. ``out`` is whole or not there.

    Raises:
        ExportError: it is no adapter, ``out`` exists and is not empty, values beyond the dtype, or the disk refused.
        RecipeError, PoolError: the recipe cannot be built.
    """
    return export_adapters(builder, [AdapterJob(recipe, ancestors, out, card, dtype, rank)])[0]


def export_adapters(builder: Builder, jobs: Sequence[AdapterJob]) -> list[AdapterReport]:
    """Write several, tensor by tensor together, so that the factors of the pool's adapters are read once for all.

    No folder appears before all are complete.

    Raises:
        ExportError, RecipeError, PoolError: as `export_adapter`, of any of them.
    """
    with ExitStack() as stack:
        folders = [stack.enter_context(new_folder(job.out)) for job in jobs]
        writings = [_Writing(builder, job) for job in jobs]
        for slot in builder.pool.layout.slots:
            for writing in writings:
                writing.add(slot)
        return [writing.write(folder) for writing, folder in zip(writings, folders, strict=True)]


def check_adapter(builder: Builder, job: AdapterJob) -> None:
    """Refuse what `export_adapter` would, as far as that is known before any factor is read.

    Raises:
        ExportError, RecipeError, PoolError: as `export_adapter`.
    """
    _Writing(builder, job)


class _Source(Protocol):
    def compressed(self, slot: Slot) -> Compressed | None:
        """What one tensor's factors are; ``None`` where there are none."""


@dataclass(frozen=True)
class _Factored:
    """Factors, of a smaller rank where one is asked for."""

    adapter: Factored
    rank: int | None

    def compressed(self, slot: Slot) -> Compressed | None:
        factors = self.adapter.factors(slot)
        if factors is None:
            return None
        return Compressed(factors, 0.0, 0.0) if self.rank is None else smaller(factors, self.rank)


class _Writing:
    """One adapter on its way from a recipe to a folder."""

    def __init__(self, builder: Builder, job: AdapterJob) -> None:
        if job.dtype not in DTYPES:
            raise ExportError(f"unknown dtype {job.dtype!r}; choose one of {', '.join(DTYPES)}")
        if job.rank is not None and job.rank < 1:
            raise ExportError(f"an adapter of rank {job.rank} is impossible; give a rank of 1 or more")
        self._pool = builder.pool
        self._job = job
        self._places = peft.places(builder.pool)
        if not self._places:
            raise ExportError("the pool has no adapters over pool.base, so that no recipe of it is an adapter")
        self._source = _source(builder, job, self._places.keys())
        self._done: dict[str, Compressed] = {}
        self._tensors: dict[str, tuple[Planned, Array]] = {}

    def add(self, slot: Slot) -> None:
        """One tensor's factors, as they will be written."""
        found = self._source.compressed(slot)
        if found is not None:
            self._done[slot.name] = found
            if found.factors is not None:
                self._keep(slot, found.factors)

    def write(self, folder: Path) -> AdapterReport:
        if not self._tensors:
            self._add_nothing()
        report = self._report()
        planned = aligned(plan for plan, _ in self._tensors.values())
        write_file(folder / WEIGHTS, planned, lambda plan: (self._tensors[plan.name][1],))
        config = peft.settings(report.ranks, self._places, self._pool)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        origin = provenance(self._pool, self._job.recipe, self._job.ancestors)
        told = {"rank": self._job.rank, "ranks": report.ranks, "error": report.error, "errors": report.errors}
        write_origin(folder, f"{self._job.card.rstrip()}\n\n## Adapter\n\n{report.text}\n", {**origin, "adapter": told})
        return report

    def _keep(self, slot: Slot, factors: Factors) -> None:
        for name, values in self._places[slot.name].tensors(factors, slot.shape).items():
            plan = Planned(name, DTYPES[self._job.dtype], values.shape)
            stored = from_float32(np.ascontiguousarray(values).reshape(-1), plan.dtype)
            if plan.dtype == "F16" and not np.isfinite(stored).all():
                raise ExportError(f"tensor {name!r} holds values beyond float16; write it as bfloat16 or float32")
            self._tensors[name] = plan, stored

    def _add_nothing(self) -> None:
        """A rank of 1 that is zero, since PEFT knows no adapter of nothing."""
        for slot in self._pool.layout.slots:
            if slot.name in self._places:
                columns = math.prod(slot.shape[1:])
                zero = Factors(np.zeros((slot.shape[0], 1), np.float32), np.zeros((1, columns), np.float32))
                self._done[slot.name] = Compressed(zero, 0.0, 0.0)
                self._keep(slot, zero)

    def _report(self) -> AdapterReport:
        ranks = {name: one.factors.rank for name, one in self._done.items() if one.factors is not None}
        errors = {name: one.error for name, one in self._done.items() if one.lost > 0.0}
        lost, whole = (math.fsum(getattr(one, what) for one in self._done.values()) for what in ("lost", "whole"))
        return AdapterReport(ranks, errors, Compressed(None, lost, whole).error)


def _source(builder: Builder, job: AdapterJob, modules: Collection[str]) -> _Source:
    """The recipe's factors, or its difference from the base."""
    vector = builder.resolve(job.recipe, job.ancestors)
    try:
        return _Factored(_factored(builder, vector, job), job.rank)
    except RecipeError as error:
        if job.rank is None:
            raise ExportError(
                f"recipe {job.recipe.digest} cannot be written as an adapter exactly: {error}; give a rank to "
                "approximate it, or write the whole model"
            ) from error
    base = builder.pool.checkpoints[builder.pool.reference]
    return Difference(partial(builder.read, vector), base, modules, job.rank)


def _factored(builder: Builder, vector: Vector, job: AdapterJob) -> Factored:
    if isinstance(vector, MergedAdapter):
        return vector
    table = flat_table(builder, vector, job.recipe, job.ancestors)
    if table is None:
        raise RecipeError(f"{job.recipe.operator} or what it is built from is no linear combination of adapters")
    return LinearAdapter(builder.pool, table, builder.adapters.members)
