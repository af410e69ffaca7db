"""The layout of safetensors files that are written, and of folders of them. No model is ever held whole."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
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


class Blueprint:
    """The bytes of one file before they are written: the header, and after it every tensor's in order."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        ends = [0, *accumulate(plan.nbytes for plan in planned)]
        for plan, start, stop in zip(planned, ends, ends[1:], strict=False):
            header[plan.name] = {"dtype": plan.dtype, "shape": plan.shape, "data_offsets": [start, stop]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # data begins aligned
        self.header = len(text).to_bytes(8, "little") + text
        self.nbytes = len(self.header) + ends[-1]
        self._planned = tuple(planned)
        self._ends = [len(self.header) + end for end in ends]

    def within(self, start: int, stop: int) -> Iterator[tuple[Planned, int, int]]:
        """The tensors that have bytes in ``start:stop`` of the file, and which elements those are."""
        for at in range(max(0, bisect_right(self._ends, start) - 1), len(self._planned)):
            first, last = self._ends[at], self._ends[at + 1]
            if first >= stop:
                return
            low, high, size = max(first, start), min(last, stop), STORED[self._planned[at].dtype].itemsize
            if low < high:
                yield self._planned[at], (low - first) // size, (high - first) // size


def write_file(path: Path, planned: Sequence[Planned], pieces: Callable[[Planned], Iterable[Array]]) -> None:
    """Write one new file: ``planned`` gives the header, ``pieces`` the flat values of each tensor in order.

    Raises:
        ValueError: the pieces of a tensor have not the planned size or dtype.
        OSError: the disk refused.
    """
    with path.open("xb") as file:
        file.write(Blueprint(planned).header)
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
