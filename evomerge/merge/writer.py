"""Writing safetensors files as a stream: the header first, then every tensor's bytes in order, never a whole model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evomerge.merge.checkpoint import INDEX, SINGLE
from evomerge.merge.tensorfile import STORED, Array


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to be written: its name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * STORED[self.dtype].itemsize


def write_file(path: Path, planned: Sequence[Planned], pieces: Callable[[Planned], Iterable[Array]]) -> None:
    """Write one new file: ``planned`` gives the header, ``pieces`` the flat values of each tensor in order.

    Raises:
        ValueError: the pieces of a tensor have not the planned size or dtype.
        OSError: the disk refused.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for plan in planned:
        header[plan.name] = {"dtype": plan.dtype, "shape": plan.shape, "data_offsets": [offset, offset + plan.nbytes]}
        offset += plan.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins aligned
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for plan in planned:
            written = 0
            for piece in pieces(plan):
                if piece.dtype != STORED[plan.dtype]:
                    raise ValueError(f"tensor {plan.name!r} is planned as {plan.dtype} but given as {piece.dtype}")
                file.write(np.ascontiguousarray(piece).data)
                written += piece.nbytes
            if written != plan.nbytes:
                raise ValueError(f"tensor {plan.name!r} is planned with {plan.nbytes} bytes but given {written}")


def shards(planned: Sequence[Planned], limit: int) -> Iterator[tuple[str, tuple[Planned, ...]]]:
    """File names and their tensors: one ``model.safetensors``, or numbered shards of about ``limit`` bytes."""
    lots: list[list[Planned]] = [[]]
    room = limit
    for plan in planned:
        if lots[-1] and plan.nbytes > room:
            lots.append([])
            room = limit
        lots[-1].append(plan)
        room -= plan.nbytes
    for number, lot in enumerate(lots, start=1):
        name = SINGLE if len(lots) == 1 else f"model-{number:05d}-of-{len(lots):05d}.safetensors"
        yield name, tuple(aligned(lot))


def aligned(planned: Iterable[Planned]) -> list[Planned]:
    """Wide dtypes first, so that every tensor of a file begins at a multiple of its item size."""
    return sorted(planned, key=lambda plan: -STORED[plan.dtype].itemsize)


def write_index(folder: Path, files: Sequence[tuple[str, tuple[Planned, ...]]]) -> None:
    """The index that says which shard holds which tensor."""
    total = sum(plan.nbytes for _, lot in files for plan in lot)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {plan.name: name for name, lot in files for plan in lot},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
