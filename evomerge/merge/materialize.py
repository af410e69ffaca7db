"""Materialization: resolved recipes as numbers, in live models, files or any arrays, piece by piece over threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Semaphore
from typing import Any, Protocol, TypeVar, cast

from evomerge.merge.bind import Target
from evomerge.merge.cache import Vector
from evomerge.merge.dense import Dense
from evomerge.merge.device import Device
from evomerge.merge.layout import Slot
from evomerge.merge.once import Once
from evomerge.merge.parallel import run
from evomerge.merge.stream import Stream
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import Geometry, Room

SPAN = 1 << 20
"""Elements that a thread writes before it takes more work: many, lest threads wait for one another."""

_SENT = 1 << 24
"""Elements that an accelerator computes at a time, where a tensor may be cut."""

_CACHED = 1 << 26
"""Bytes of a result that may still be in a processor's caches when it is used."""


class Lot(Protocol):
    """A piece of work."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The merged tensors that it takes elements of."""


LotT = TypeVar("LotT", bound=Lot)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Stretches:
    """Elements ``start:stop`` of some tensors."""

    parts: Sequence[tuple[Slot, int, int]]

    @property
    def slots(self) -> Sequence[Slot]:
        return [slot for slot, _, _ in self.parts]


class Materializer:
    """Writes vectors of any engine; ``engine`` gives a vector's own. The bytes do not depend on ``threads``.

    At most ``threads`` compute at a time; others may call, and write to disk meanwhile what they have computed.
    """

    def __init__(self, engine: Callable[[Vector], Geometry[Any]], slots: Sequence[Slot], threads: int) -> None:
        self._engine = engine
        self._slots = slots
        self.threads = threads
        self._working = Semaphore(threads)
        self._devices = Once()

    def fill(self, vectors: Sequence[Vector], slot: Slot, start: int, room: Room) -> None:
        """Write a merged tensor's elements from ``start`` on, all vectors of one engine in one pass over the pool."""
        engines = [self._engine(vector) for vector in vectors]
        with self._working:
            for engine in dict.fromkeys(engines):
                numbers = [number for number, one in enumerate(engines) if one is engine]
                engine.fill([vectors[number] for number in numbers], slot, start, room.of(numbers))

    @contextmanager
    def reading(self, vectors: Sequence[Vector]) -> Iterator[None]:
        """While their tensors are read; then streams let go of what they kept for that."""
        try:
            yield
        finally:
            for vector in vectors:
                if isinstance(vector, Stream):
                    vector.forget()

    def fill_all(self, vectors: Sequence[Vector], rooms: Mapping[str, Room]) -> None:
        """Write whole tensors, each into the room under its name."""
        with self.reading(vectors):
            self._fill_all(vectors, rooms)

    def _fill_all(self, vectors: Sequence[Vector], rooms: Mapping[str, Room]) -> None:
        def work(lot: _Stretches) -> None:
            for slot, start, stop in lot.parts:
                self.fill(vectors, slot, start, rooms[slot.name].part(start, stop))

        lots = list(_lots([slot for slot in self._slots if slot.name in rooms]))
        self._run(self.tasks(vectors, lots, work), len(lots))

    def _run(self, tasks: Iterator[Callable[[], object]], lots: int) -> None:
        with closing(run(tasks, min(self.threads, max(1, lots)))) as results:
            deque(results, maxlen=0)

    def write(self, vectors: Sequence[Vector], targets: Sequence[Target]) -> None:
        """Write vectors into bound models, one into each: together where a tensor is memory of one dtype in all."""
        pairs = list(zip(vectors, targets, strict=True))
        if all(isinstance(vector, Dense) and target.flat is not None for vector, target in pairs):
            for vector, target in pairs:
                target.put(cast(Dense, vector).values)
            return
        past = sum(array.nbytes for target in targets for array, _ in target.arrays.values()) > _CACHED
        rooms = {}
        for slot in self._slots:
            found = [target.arrays.get(slot.name) for target in targets]
            arrays = [array for array, _ in filter(None, found)]
            dtypes = {dtype for _, dtype in filter(None, found)}
            if len(arrays) == len(targets) and len(dtypes) == 1:
                rooms[slot.name] = Room(arrays, dtypes.pop(), past)
        with self.reading(vectors):
            self._fill_all(vectors, rooms)
            self._send_all(pairs, [slot for slot in self._slots if slot.name not in rooms])

    def _send_all(self, pairs: Sequence[tuple[Vector, Target]], slots: Sequence[Slot]) -> None:
        """Write tensors that are no memory of the processor's, or not of one dtype in all targets."""

        def send(lot: _Stretches) -> None:
            for slot in lot.slots:
                for vector, target in pairs:
                    if slot.name in target.tensors:
                        self._send(vector, slot, target.tensors[slot.name])

        rest = [_Stretches([(slot, 0, slot.size)]) for slot in slots]
        self._run(self.tasks([vector for vector, _ in pairs], rest, send), len(rest))

    def _send(self, vector: Vector, slot: Slot, tensor: Any) -> None:
        """Write one tensor that is no memory of the processor's, or of a dtype of its own, where it is."""
        engine = self._engine(vector)
        device = self._devices.get(tensor.device, lambda: Device(tensor.device))
        low = 0
        for _, high in engine.cuts(vector, slot):
            if high - low >= _SENT or high == slot.size:
                tensor[low:high].copy_(engine.on(vector, device, slot, low, high))
                low = high

    def tasks(
        self, vectors: Sequence[Vector], lots: Sequence[LotT], work: Callable[[LotT], T]
    ) -> Iterator[Callable[[], T | None]]:
        """Work on every lot, in order. What tensors need first is prepared ahead, lest all threads wait for one."""
        streams = [vector for vector in vectors if isinstance(vector, Stream)]
        coming: list[Slot] = []
        if streams and self.threads > 1:
            coming = list(dict.fromkeys(slot for lot in lots for slot in lot.slots))
        place = {slot: at for at, slot in enumerate(coming)}
        ready = 0
        for lot in lots:
            last = max((place[slot] for slot in lot.slots), default=-1) if coming else -1
            for slot in coming[ready : last + 1 + self.threads]:
                yield partial(self._prepare, streams, slot)
            ready = max(ready, last + 1 + self.threads)
            yield partial(work, lot)

    def _prepare(self, streams: Sequence[Stream], slot: Slot) -> None:
        with self._working:
            for stream in streams:
                stream.prepare(slot)


def _lots(slots: Sequence[Slot]) -> Iterator[_Stretches]:
    """Large tensors in stretches, small ones together."""
    parts: list[tuple[Slot, int, int]] = []
    elements = 0
    for slot in slots:
        for start, stop in chunks(slot.size, SPAN):
            parts.append((slot, start, stop))
            elements += stop - start
            if elements >= SPAN:
                yield _Stretches(parts)
                parts, elements = [], 0
    if parts:
        yield _Stretches(parts)
