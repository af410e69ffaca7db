"""Export: a resolved recipe as a Hugging Face folder that any loader takes, with all that says where it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.candidate import Recipe
from evomerge.errors import ExportError
from evomerge.merge.build import Builder
from evomerge.merge.cache import Vector
from evomerge.merge.companions import companions
from evomerge.merge.folders import new_folder
from evomerge.merge.layout import natural
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import CHUNK, read_json
from evomerge.merge.table import Table
from evomerge.merge.tensorfile import STORED, Array, chunks, from_float32
from evomerge.merge.writer import Planned, shards, write_file, write_index

SHARD_BYTES = 5_000_000_000

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What merged tensors may be written as, and safetensors' names of it."""


def export(
    builder: Builder,
    recipe: Recipe,
    ancestors: Sequence[Recipe],
    out: Path,
    *,
    card: str,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Write the recipe's model to the folder ``out``, tensor by tensor.

    ``ancestors`` is the whole ancestry, oldest first; ``card`` the text of README.md; ``dtype`` of the merged tensors
    is float64, float32, float16 or bfloat16 (default: each tensor's own in the reference). Everything is written
    beside ``out`` and renamed at the end, so ``out`` is whole or not there. ``progress`` is called with the bytes of
    each piece that was written.

    Raises:
        ExportError: ``out`` exists and is not empty, an unknown dtype, values beyond its range, or the disk refused.
        RecipeError, PoolError: the recipe cannot be built.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    vector = builder.resolve(recipe, ancestors)
    with new_folder(out) as folder:
        _Weights(builder, vector, dtype, progress).write(folder, shard_bytes)
        _copy_companions(builder.pool.reference_folder, folder, dtype)
        table = flat_table(builder, vector, recipe, ancestors)
        origin = provenance(builder.pool, recipe, ancestors)
        write_origin(folder, card, {**origin, "coefficients": table and _coefficients(table)})


def write_origin(folder: Path, card: str, origin: Mapping[str, Any]) -> None:
    """Write README.md, and recipe.json: where the files beside them come from."""
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "recipe.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def planned(pool: ModelPool, dtype: str | None = None) -> list[Planned]:
    """The tensors of any export, in order."""
    merged = {slot.name for slot in pool.layout.slots}
    reference = pool.checkpoints[pool.reference]
    return [
        Planned(name, DTYPES[dtype] if dtype and name in merged else reference.export_dtype(name), entry.shape)
        for name, entry in sorted(reference.entries.items(), key=lambda item: natural(item[0]))
    ]


class _Weights:
    """All tensors of a checkpoint folder: merged ones from the vector, the others from the reference."""

    def __init__(self, builder: Builder, vector: Vector, dtype: str | None, progress: Callable[[int], None]) -> None:
        self._builder = builder
        self._progress = progress
        self._vector = vector
        self._slots = {slot.name: slot for slot in builder.pool.layout.slots}
        self._reference = builder.pool.checkpoints[builder.pool.reference]
        self._planned = planned(builder.pool, dtype)

    def write(self, folder: Path, shard_bytes: int) -> None:
        files = list(shards(self._planned, shard_bytes))
        for name, lot in files:
            write_file(folder / name, lot, self._counted)
        if len(files) > 1:
            write_index(folder, files)

    def _counted(self, plan: Planned) -> Iterator[Array]:
        for piece in self._pieces(plan):
            yield piece
            self._progress(piece.nbytes)

    def _pieces(self, plan: Planned) -> Iterator[Array]:
        if plan.name in self._slots:
            for _, values in self._builder.chunks(self._vector, self._slots[plan.name]):
                yield _cast(values, plan)
        else:
            for start, stop in chunks(self._reference.entries[plan.name].size, CHUNK):
                yield _cast(self._reference.stored(plan.name, start, stop), plan)


def _cast(values: Array, plan: Planned) -> Array:
    if values.dtype == STORED[plan.dtype]:
        return values
    stored = from_float32(values.astype(np.float32, copy=False), plan.dtype)
    if plan.dtype == "F16" and not np.isfinite(stored).all():
        raise ExportError(f"tensor {plan.name!r} holds values beyond float16; export as bfloat16 or float32")
    return stored


def _copy_companions(source: Path, folder: Path, dtype: str | None) -> None:
    for path in companions(source):
        shutil.copyfile(path, folder / path.name)
    config = folder / "config.json"
    if dtype and config.is_file():
        table = read_json(config)
        table.update({key: dtype for key in ("dtype", "torch_dtype") if key in table} or {"dtype": dtype})
        config.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def flat_table(builder: Builder, vector: Vector, recipe: Recipe, ancestors: Sequence[Recipe]) -> Table | None:
    """The recipe flattened to coefficients, whatever it was built from; ``None`` if its ancestry has noise."""
    if isinstance(vector, Table):
        return vector
    if any(one.noise is not None for one in (recipe, *ancestors)):
        return None
    flat = Builder(builder.pool, "table").resolve(recipe, ancestors)
    return flat if isinstance(flat, Table) else None


def provenance(pool: ModelPool, recipe: Recipe, ancestors: Sequence[Recipe]) -> dict[str, Any]:
    """What recipe.json holds of any export; recipes are in the exact codec's form."""
    return {
        "digest": recipe.digest,
        "recipe": json.loads(recipe.text),
        "ancestors": [json.loads(one.text) for one in ancestors],
        "sources": list(pool.sources),
        "source_digests": pool.digests(),
        "groups": {group.name: group.size for group in pool.groups},
        "order": [slot.name for slot in pool.layout.slots],
    }


def _coefficients(table: Table) -> dict[str, list[dict[str, Any]]]:
    """Of every source, stretch by stretch of each group."""
    return {
        group: [
            {"start": start, "stop": stop, "coefficients": row}
            for start, stop, row in zip(bounds.tolist(), bounds.tolist()[1:], rows.tolist(), strict=False)
        ]
        for group, (bounds, rows) in table.parts.items()
    }
