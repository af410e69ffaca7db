"""What a tensor operator sees: the sources of one merge as the port's `Piece`, `Tensor` and `Model`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER
from evomerge.errors import RecipeError
from evomerge.merge.device import Device
from evomerge.merge.layout import Slot
from evomerge.merge.noise import bit_stream, uniform_bits
from evomerge.merge.once import Once
from evomerge.merge.operators.port import Arrays, Grain
from evomerge.merge.pool import ModelPool
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.source import CHUNK, Source
from evomerge.merge.stream import Bounds, Member, Stream
from evomerge.merge.tensorfile import Array, Floats, chunks

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """The sources of one merge: streams, their names in the recipe, the pool they lie over, and the cache on disk."""

    pool: ModelPool
    names: tuple[str, ...]
    streams: tuple[Stream, ...]
    cache: PoolCache

    def fingerprint(self, source: int, slot: Slot) -> str:
        """Names the content of one source's tensor among all pools: what is computed depends on all that its has."""
        stream = self.streams[source]
        found = stream.fingerprint(slot)
        return found if isinstance(stream, Member) else f"{self.pool.meaning}:{found}"

    def attached(self, kind: str, source: int) -> Source:
        """What the pool keeps beside a source."""
        return self.pool.attached(self.names[source].removeprefix(MEMBER), kind)


class MergedModel:
    """All tensors of a merge's sources."""

    def __init__(self, sources: Sources, threads: int = 1) -> None:
        self.threads = threads
        self._sources = sources
        self._tensors: dict[str, MergedTensor] = {}
        self._once = Once()
        self.sources = len(sources.streams)

    def tensor(self, slot: Slot) -> MergedTensor:
        """One of them."""
        found = self._tensors.get(slot.name)
        if found is None:
            found = self._tensors.setdefault(slot.name, MergedTensor(self, self._sources, slot))
        return found

    def tensors(self) -> Iterator[MergedTensor]:
        """Every merged tensor in the order of the parameter vector."""
        return map(self.tensor, self._sources.pool.layout.slots)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute()`` returns, computed once per key."""
        return self._once.get(key, compute)


class MergedTensor:
    """One tensor of all sources."""

    def __init__(self, model: MergedModel, sources: Sources, slot: Slot) -> None:
        self.model = model
        self.slot = slot
        self.name = slot.name
        self.shape = slot.shape
        self.size = slot.size
        self.of = sources
        self.sources = len(sources.streams)

    def pieces(self, grain: Grain = "element") -> Iterator[MergedPiece]:
        """The whole tensor, always cut in the same way."""
        for start, stop in cuts(self.slot, grain):
            yield MergedPiece(self, grain, start, stop)

    def read(self, source: int, start: int, stop: int) -> Floats:
        """Elements of one source."""
        return self.of.streams[source].read(self.slot, start, stop)

    def stored(self, source: int, start: int, stop: int) -> tuple[Array, str]:
        """Elements of one source before they are converted."""
        return self.of.streams[source].stored(self.slot, start, stop)

    def bits(self, seed: int, source: int, start: int, stop: int) -> NDArray[np.uint16]:
        """Sixteen random bits per element."""
        return uniform_bits(self.bit_stream(seed, source), start, stop)

    def bit_stream(self, seed: int, source: int) -> NDArray[np.uint32]:
        """Told apart by seed, source and tensor."""
        return bit_stream(seed, f"{self.of.names[source]}:{self.name}")

    def remember(
        self,
        key: str,
        compute: Callable[[], Arrays],
        of: Sequence[int] | None = None,
        attached: Sequence[tuple[str, int]] = (),
    ) -> Arrays:
        """Arrays by key and content, from the pool's cache."""
        sources = range(self.sources) if of is None else of
        content = [self.of.fingerprint(at, self.slot) for at in sources]
        content += [self._attachment(kind, at).fingerprint(self.name) for kind, at in attached]
        return self.of.cache.get("\n".join([key, *content]), compute)

    def attached(self, kind: str, source: int) -> Floats | None:
        """What the pool keeps beside one source for this tensor; a view of the file where that holds float32."""
        found = self.of.attached(kind, source)
        entry = found.entries.get(self.name)
        if entry is None:
            return None
        whole = found.stored(self.name) if entry.dtype == "F32" else found.floats(self.name)
        return whole.reshape(entry.shape)

    def attached_span(self, kind: str, source: int, start: int, stop: int) -> Floats:
        """Elements of what the pool keeps beside one source for every element of this tensor."""
        return self._attachment(kind, source).floats(self.name, start, stop)

    def _attachment(self, kind: str, source: int) -> Source:
        found = self.of.attached(kind, source)
        entry = found.entries.get(self.name)
        if entry is None or entry.shape != self.shape or not entry.floating:
            wrong = f"no tensor {self.name!r}" if entry is None else f"{self.name!r} as {entry.dtype} {entry.shape}"
            raise RecipeError(f"{found.path} has {wrong} but {self.shape} is needed; make this {kind} file anew")
        return found


class MergedPiece:
    """Elements ``start:stop`` of one tensor."""

    def __init__(self, tensor: MergedTensor, grain: Grain, start: int, stop: int) -> None:
        self.tensor = tensor
        self.start = start
        self._stop = stop
        self._shape = (-1,) if grain == "element" else (-1, _columns(tensor.slot))

    @cached_property
    def theta(self) -> Floats:
        """The sources' values, read when first asked for."""
        out = np.empty((self.tensor.sources, self._stop - self.start), dtype=np.float32)
        for row, stream in zip(out, self.tensor.of.streams, strict=True):
            row[:] = stream.read(self.tensor.slot, self.start, self._stop)
        return out.reshape(self.tensor.sources, *self._shape)

    @property
    def stored(self) -> list[tuple[Array, str]]:
        """The sources' values before they are converted."""
        return [stream.stored(self.tensor.slot, self.start, self._stop) for stream in self.tensor.of.streams]

    def source(self, at: int) -> Floats:
        """One source's values alone."""
        return self.tensor.read(at, self.start, self._stop).reshape(self._shape)

    @property
    def deltas(self) -> Floats:
        """``theta_i - theta_0``."""
        deltas: Floats = self.theta[1:] - self.theta[0]
        return deltas

    def bits(self, seed: int, source: int) -> NDArray[np.uint16]:
        """Sixteen random bits per element."""
        return self.tensor.bits(seed, source, self.start, self._stop).reshape(self._shape)

    def attached(self, kind: str) -> Floats:
        """What the pool keeps beside the sources, shaped like ``theta``."""
        rows = [
            self.tensor.attached_span(kind, source, self.start, self._stop) for source in range(self.tensor.sources)
        ]
        return np.stack(rows).reshape(self.tensor.sources, *self._shape)


class DevicePiece(MergedPiece):
    """The same as torch tensors on a device."""

    def __init__(self, device: Device, tensor: MergedTensor, grain: Grain, start: int, stop: int) -> None:
        super().__init__(tensor, grain, start, stop)
        self._device = device

    @cached_property
    def theta(self) -> Any:
        """The sources' values, read when first asked for."""
        import torch

        return torch.stack([self.source(at) for at in range(self.tensor.sources)])

    @property
    def stored(self) -> None:  # type: ignore[override] # which only kernels of the processor read
        """Nothing."""

    def source(self, at: int) -> Any:
        """One source's values alone."""
        import torch

        found = self.tensor.of.streams[at].on(self._device, self.tensor.slot, self.start, self._stop)
        return found.to(torch.float32, copy=True).reshape(self._shape)

    def bits(self, seed: int, source: int) -> Any:
        """Sixteen random bits per element, drawn by the processor."""
        return self._device.put(super().bits(seed, source).astype(np.int32))

    def attached(self, kind: str) -> Any:
        """What the pool keeps beside the sources, shaped like ``theta``."""
        return self._device.put(super().attached(kind))


def cuts(slot: Slot, grain: Grain, times: int = 1) -> Iterator[Bounds]:
    """How a tensor of that grain is cut: in chunks, or so many times larger where any cut will do."""
    if grain == "matrix":
        return iter([(0, slot.size)])
    if grain == "element":
        return chunks(slot.size, times * CHUNK)
    columns = _columns(slot)
    return chunks(slot.size, columns * max(1, CHUNK // columns))


def aligned(slot: Slot, grain: Grain, low: int, high: int) -> Bounds:
    """The smallest piece of that grain that holds elements ``low:high``."""
    if grain == "element":
        return low, high
    if grain == "matrix":
        return 0, slot.size
    columns = _columns(slot)
    return low // columns * columns, -(-high // columns) * columns


def _columns(slot: Slot) -> int:
    return max(1, slot.shape[-1]) if slot.shape else 1
