"""Small checkpoints made of numpy arrays, for tests that need a model pool and no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.tensorfile import NATIVE, from_float32
from evomerge.merge.writer import Planned, aligned, write_file


def save_checkpoint(path: Path, tensors: Mapping[str, NDArray[Any]], bfloat16: bool = False) -> Path:
    """Write arrays as one new safetensors file at ``path``, float32 ones as bfloat16 if asked; returns ``path``."""
    stored = {}
    for name, array in tensors.items():
        kind = "BF16" if bfloat16 and array.dtype == np.float32 else NATIVE[array.dtype]
        flat = np.ascontiguousarray(array).reshape(-1)
        stored[name] = Planned(name, kind, array.shape), from_float32(flat, kind) if kind == "BF16" else flat
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, aligned(plan for plan, _ in stored.values()), lambda plan: (stored[plan.name][1],))
    return path
