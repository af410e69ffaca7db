"""Any model as an adapter: its difference from the base, tensor by tensor, at a smaller rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np

from evomerge.merge.adapters.compress import Compressed, nearest
from evomerge.merge.layout import Slot
from evomerge.merge.source import CHUNK, Source
from evomerge.merge.tensorfile import Floats, chunks

_ROUNDING = 1e-6
"""Share of a tensor that changes by rounding alone: sums of models are in float32."""

Read = Callable[[Slot, int, int], Floats]


class Difference:
    """``theta - theta_0`` on the tensors called ``modules``, each at ``rank``; on all others it is lost."""

    def __init__(self, read: Read, base: Source, modules: Collection[str], rank: int) -> None:
        self._read = read
        self._base = base
        self._modules = modules
        self._rank = rank

    def compressed(self, slot: Slot) -> Compressed | None:
        """The difference of one tensor; ``None`` for one that is no module and has not changed."""
        if slot.name in self._modules:
            delta = np.empty(slot.size, dtype=np.float32)
            for start, stop in chunks(slot.size, CHUNK):
                delta[start:stop] = self._delta(slot, start, stop)
            return nearest(delta.reshape(slot.shape[0], -1), self._rank)
        lost, whole = (math.fsum(squares) for squares in zip(*self._squares(slot), strict=True))
        return Compressed(None, lost, lost) if math.sqrt(lost) > _ROUNDING * math.sqrt(whole) else None

    def _delta(self, slot: Slot, start: int, stop: int) -> Floats:
        values = self._read(slot, start, stop)
        values -= self._base.floats(slot.name, start, stop)
        return values

    def _squares(self, slot: Slot) -> list[tuple[float, float]]:
        """Of the difference and of the base, chunk by chunk."""
        return [
            (_square(self._delta(slot, start, stop)), _square(self._base.floats(slot.name, start, stop)))
            for start, stop in chunks(slot.size, CHUNK)
        ]


def _square(values: Floats) -> float:
    return float(np.sum(values.astype(np.float64) ** 2))
