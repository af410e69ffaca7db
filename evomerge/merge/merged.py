"""What a `TensorOperator` makes of its sources, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evomerge.merge.device import Device
from evomerge.merge.layout import Slot
from evomerge.merge.once import Once
from evomerge.merge.operators.port import TensorOperator, Values
from evomerge.merge.pieces import DevicePiece, MergedModel, MergedPiece, MergedTensor, Sources, aligned, cuts
from evomerge.merge.rows import Checked
from evomerge.merge.stream import Bounds, Stream
from evomerge.merge.tensorfile import Floats

_FUSED = 8
"""Chunks in a piece for a kernel, to which calling it and finding the sources' memory would cost more than its work."""
_TENSORS = 16
"""What has been prepared is kept for so many tensors per thread: a pass works on few at a time."""
_MATRICES = 4
"""Whole merged tensors kept while their pieces are read, beside those that threads are preparing."""


class Merged(Stream):
    """The result of a tensor operator. ``segments`` tile every group; ``threads`` say how much is worked on at once."""

    def __init__(
        self, key: str, merge: TensorOperator, sources: Sources, segments: Sequence[Checked], threads: int = 1
    ) -> None:
        self.key = key
        self._merge = merge
        self._segments = segments
        self._sources = sources
        self._threads = threads
        self._begin()

    def _begin(self) -> None:
        """With nothing found out yet."""
        self._model = MergedModel(self._sources, self._threads)
        self._found: dict[str, Sequence[tuple[int, int, Values]]] = {}
        self._prepared = Once(_TENSORS * self._threads)
        self._matrices = Once(_MATRICES + self._threads)

    def cuts(self, slot: Slot) -> Iterator[Bounds]:
        """As the operator's grain asks."""
        tensor = self._model.tensor(slot)
        return cuts(slot, self._merge.grain(tensor), _FUSED if self._merge.fused else 1)

    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """Segment by segment."""
        tensor = self._model.tensor(slot)
        parts = [
            (max(first, start), min(last, stop), values)
            for first, last, values in self._parts(slot)
            if first < stop and last > start
        ]
        if len(parts) == 1 and self._merge.grain(tensor) != "matrix":  # a merged matrix is kept, and must not be lent
            alone: Floats = self._stretch(tensor, parts[0][2], start, stop)
            return alone
        out = np.empty(stop - start, dtype=np.float32)
        for low, high, values in parts:
            out[low - start : high - start] = self._stretch(tensor, values, low, high)
        return out

    def on(self, device: Device, slot: Slot, start: int, stop: int) -> Any:
        """Segment by segment, by the operator's own text on torch tensors."""
        import torch

        tensor = self._model.tensor(slot)
        parts = [
            self._stretch(tensor, values, max(first, start), min(last, stop), device)
            for first, last, values in self._parts(slot)
            if first < stop and last > start
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def prepare(self, slot: Slot) -> None:
        """What the operator prepares, and of grain ``matrix`` the merged tensor itself."""
        tensor = self._model.tensor(slot)
        for values in dict.fromkeys(values for _, _, values in self._parts(slot)):
            if self._merge.grain(tensor) == "matrix":
                self._stretch(tensor, values, 0, slot.size)
            else:
                self._ready(tensor, values)

    def forget(self) -> None:
        """Whole merged matrices, what was prepared and found out about whole models: of its sources, too."""
        self._begin()
        for stream in self._sources.streams:
            stream.forget()

    @property
    def nbytes(self) -> int:
        """Of its segments and their values."""
        return 4000 + sum(1000 + 100 * len(values.flat) for _, values in self._segments)

    def _parts(self, slot: Slot) -> Sequence[tuple[int, int, Values]]:
        """The segments that reach into a tensor, clipped to it, and their values."""
        found = self._found.get(slot.name)
        if found is None:
            found = self._found[slot.name] = [
                (max(segment.start - slot.offset, 0), min(segment.stop - slot.offset, slot.size), values)
                for segment, values in self._segments
                if segment.group == slot.group
                and segment.start < slot.offset + slot.size
                and segment.stop > slot.offset
            ]
        return found

    def _ready(self, tensor: MergedTensor, values: Values) -> Any:
        return self._prepared.get((tensor.name, values), lambda: self._merge.prepare(tensor, values))

    def _stretch(self, tensor: MergedTensor, values: Values, low: int, high: int, device: Device | None = None) -> Any:
        """Elements ``low:high`` of a tensor as they are for these values, whatever the other segments say."""
        grain = self._merge.grain(tensor)
        prepared = self._ready(tensor, values)
        start, stop = aligned(tensor.slot, grain, low, high)

        def compute() -> Any:
            if device is not None:
                piece = DevicePiece(device, tensor, grain, start, stop)
                return self._merge.merge(piece, values, prepared).reshape(-1)
            found = self._merge.merge(MergedPiece(tensor, grain, start, stop), values, prepared)
            return np.asarray(found, dtype=np.float32).reshape(-1)

        merged = self._matrices.get((tensor.name, values, device), compute) if grain == "matrix" else compute()
        return merged[low - start : high - start]
