"""Export: a resolved recipe as a Hugging Face folder that any loader takes, with all that says where it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from evomerge.candidate import Recipe
from evomerge.errors import ExportError
from evomerge.merge.build import Builder
from evomerge.merge.cache import Vector
from evomerge.merge.companions import companions
from evomerge.merge.folders import new_folder
from evomerge.merge.layout import Slot, natural
from evomerge.merge.output import BLOCK, Output, pages
from evomerge.merge.parallel import run
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import read_json
from evomerge.merge.table import Table
from evomerge.merge.tensorfile import STORED, Array, chunks
from evomerge.merge.vectors import Room, put
from evomerge.merge.writer import Blueprint, Planned, shards, write_index

SHARD_BYTES = 5_000_000_000

_STEP = 1 << 22
"""Bytes of a file that a thread computes and writes at a time."""

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What merged tensors may be written as, and safetensors' names of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A model to write.

    Attributes:
        recipe: what it is.
        ancestors: the whole ancestry, oldest first.
        out: the folder to write.
        card: the text of README.md.
    """

    recipe: Recipe
    ancestors: Sequence[Recipe]
    out: Path
    card: str


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
    """Write one model: `export_many` of a single `Order`."""
    order = Order(recipe, ancestors, out, card)
    export_many(builder, [order], dtype=dtype, shard_bytes=shard_bytes, progress=progress)


def export_many(
    builder: Builder,
    orders: Sequence[Order],
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Write models in one pass over the pool, a few megabytes at a time.

    ``dtype`` of the merged tensors is float64, float32, float16 or bfloat16 (default: each tensor's own in the
    reference). Everything is written beside the folders and renamed at the end, so each is whole or not there.
    ``progress`` is called with the number of bytes whenever some were written.

    Raises:
        ExportError: a folder exists and is not empty, an unknown dtype, values beyond its range, or the disk refused.
        RecipeError, PoolError: a recipe cannot be built.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    vectors = [builder.resolve(order.recipe, order.ancestors) for order in orders]
    weights = _Weights(builder, vectors, planned(builder.pool, dtype), progress)
    with ExitStack() as stack:
        folders = [stack.enter_context(new_folder(order.out, weights.nbytes)) for order in orders]
        weights.write(folders, shard_bytes)
        for order, vector, folder in zip(orders, vectors, folders, strict=True):
            _copy_companions(builder.pool.reference_folder, folder, dtype)
            table = flat_table(builder, vector, order.recipe, order.ancestors)
            origin = provenance(builder.pool, order.recipe, order.ancestors)
            write_origin(folder, order.card, {**origin, "coefficients": table and _coefficients(table)})


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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes ``start:stop`` of a file, and the merged tensors that have some of them."""

    start: int
    stop: int
    slots: Sequence[Slot]


class _Weights:
    """All tensors of checkpoint folders, one per vector: merged ones from the vectors, others from the reference."""

    def __init__(
        self, builder: Builder, vectors: Sequence[Vector], plans: Sequence[Planned], progress: Callable[[int], None]
    ) -> None:
        self._make = builder.materializer
        self._progress = progress
        self._vectors = vectors
        self._slots = {slot.name: slot for slot in builder.pool.layout.slots}
        self._reference = builder.pool.checkpoints[builder.pool.reference]
        self._plans = plans
        self.nbytes = sum(plan.nbytes for plan in plans)

    def write(self, folders: Sequence[Path], shard_bytes: int) -> None:
        """Write all shards of all folders."""
        files = list(shards(self._plans, shard_bytes))
        with self._make.reading(self._vectors):
            for name, lot in files:
                self._write([folder / name for folder in folders], Blueprint(lot))
        for folder in folders:
            if len(files) > 1:
                write_index(folder, files)

    def _write(self, paths: Sequence[Path], blueprint: Blueprint) -> None:
        """Write one shard of every folder: a thread more than compute, so that all compute while one writes."""
        threads = self._make.threads + 1
        free: SimpleQueue[list[Array]] = SimpleQueue()
        for _ in range(threads):
            free.put([pages(_STEP) for _ in paths])
        with ExitStack() as stack:
            outputs = [stack.enter_context(Output(path, blueprint.nbytes)) for path in paths]

            def work(lot: _Stretch) -> int:
                buffers = free.get()
                try:
                    self._fill(blueprint, lot, buffers)
                    for output, buffer in zip(outputs, buffers, strict=True):
                        output.write(buffer[: -(-(lot.stop - lot.start) // BLOCK) * BLOCK], lot.start)
                finally:
                    free.put(buffers)
                return len(paths) * (lot.stop - lot.start)

            lots = [
                _Stretch(
                    start,
                    stop,
                    [
                        self._slots[plan.name]
                        for plan, _, _ in blueprint.within(start, stop)
                        if plan.name in self._slots
                    ],
                )
                for start, stop in chunks(blueprint.nbytes, _STEP)
            ]
            results = stack.enter_context(closing(run(self._make.tasks(self._vectors, lots, work), threads)))
            for written in results:
                self._progress(written or 0)

    def _fill(self, blueprint: Blueprint, lot: _Stretch, buffers: Sequence[Array]) -> None:
        """Put the bytes of a stretch into the buffers."""
        at = 0
        if lot.start < len(blueprint.header):
            head = blueprint.header[lot.start : lot.stop]
            at = len(head)
            for buffer in buffers:
                buffer[:at] = np.frombuffer(head, dtype=np.uint8)
        for plan, first, last in blueprint.within(lot.start, lot.stop):
            size = (last - first) * STORED[plan.dtype].itemsize
            room = Room([buffer[at : at + size].view(STORED[plan.dtype]) for buffer in buffers], plan.dtype)
            at += size
            if plan.name in self._slots:
                self._make.fill(self._vectors, self._slots[plan.name], first, room)
                _check_range(plan, room)
            else:
                self._copy(plan, first, last, room)

    def _copy(self, plan: Planned, first: int, last: int, room: Room) -> None:
        """Elements of a tensor that is not merged."""
        for array in room.arrays:
            if self._reference.entries[plan.name].dtype == plan.dtype:
                array[:] = self._reference.stored(plan.name, first, last)
            else:
                put(self._reference.floats(plan.name, first, last), array, plan.dtype)


def _check_range(plan: Planned, room: Room) -> None:
    if plan.dtype == "F16" and not all(np.isfinite(array).all() for array in room.arrays):
        raise ExportError(f"tensor {plan.name!r} holds values beyond float16; export as bfloat16 or float32")


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
