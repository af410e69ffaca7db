"""Keeping what was measured beside the checkpoint that it belongs to."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import MeasureError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.writer import Planned, write_file


def save(path: Path, measured: Mapping[str, NDArray[np.float32]], checkpoint: Path) -> tuple[str, ...]:
    """Write what `fisher` or `activations` found of a checkpoint's model as a new safetensors file.

    Names that the checkpoint does not have, such as the other names of tied weights, are left out. The file is whole or
    not there.

    Returns:
        The checkpoint's floating tensors of which the file says nothing.

    Raises:
        PoolError: there is no such checkpoint.
        MeasureError: the file exists, nothing in it would belong to the checkpoint, or the disk refused.
    """
    entries = Checkpoint(checkpoint).entries
    kept = {name: array for name, array in measured.items() if name in entries}
    if not kept:
        example = next(iter(measured), "nothing")
        raise MeasureError(f"{checkpoint} has no tensor that was measured, such as {example!r}; give that model's own")
    if path.exists():
        raise MeasureError(f"{path} exists; choose another name or remove it")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        planned = [Planned(name, "F32", array.shape) for name, array in kept.items()]
        write_file(partial, planned, lambda plan: [np.ascontiguousarray(kept[plan.name]).reshape(-1)])
        partial.replace(path)
    except OSError as error:
        raise MeasureError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error
    finally:
        partial.unlink(missing_ok=True)
    return tuple(name for name, entry in entries.items() if entry.floating and name not in kept)
