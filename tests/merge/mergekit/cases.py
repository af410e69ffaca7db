"""What mergekit 0.1.5 made of the recipes here, read without mergekit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.checkpoint import Checkpoint

HERE = Path(__file__).parent
POOLS = HERE / "pools"

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Case:
    """One recipe and its outcome.

    ``yaml_text`` names models relative to ``pool``. ``tensors`` are the outputs as float32 (exact), all of them if
    ``whole``; they were stored in ``dtypes``. Of a random method they are means over ``seeds`` runs, entry by entry,
    with ``deviations`` (standard deviations of one run), and of one expert ``masks`` says more. Where mergekit refused
    or crashed there are no tensors but an ``error`` of its type and message.
    """

    name: str
    shows: str
    yaml_text: str
    options: tuple[str, ...]
    pool: Path
    tensors: Tensors
    dtypes: dict[str, str]
    whole: bool = False
    seeds: int = 1
    deviations: Tensors = field(default_factory=dict)
    masks: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    vocabulary: dict[str, int] = field(default_factory=dict)
    error: dict[str, str] | None = None


def cases() -> list[Case]:
    """All cases in name order."""
    return [_case(path) for path in sorted((HERE / "golden").glob("*.json"))]


def _case(path: Path) -> Case:
    about = json.loads(path.read_text(encoding="utf-8"))
    tensors, dtypes = _read(path.with_suffix(".safetensors"))
    deviation = "deviation/"
    return Case(
        name=about["name"],
        shows=about["shows"],
        yaml_text=about["merge"],
        options=tuple(about["options"]),
        pool=POOLS,
        tensors={name: array for name, array in tensors.items() if not name.startswith(deviation)},
        dtypes={name: dtype for name, dtype in dtypes.items() if not name.startswith(deviation)},
        whole=about.get("whole", False),
        seeds=about.get("seeds", 1),
        deviations={
            name.removeprefix(deviation): array for name, array in tensors.items() if name.startswith(deviation)
        },
        masks=about.get("masks", {}),
        config=about.get("config", {}),
        vocabulary=about.get("vocabulary", {}),
        error=about.get("error"),
    )


def _read(file: Path) -> tuple[Tensors, dict[str, str]]:
    if not file.exists():
        return {}, {}
    source = Checkpoint(file)
    tensors = {name: source.floats(name).reshape(entry.shape) for name, entry in source.entries.items()}
    return tensors, {name: entry.dtype for name, entry in source.entries.items()}
