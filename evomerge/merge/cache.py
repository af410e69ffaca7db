"""The builder's memory of recent vectors."""

from __future__ import annotations

from collections import OrderedDict

from evomerge.candidate import MEMBER
from evomerge.merge.dense import Dense
from evomerge.merge.stream import Stream
from evomerge.merge.table import Table

Vector = Table | Dense | Stream


class VectorCache:
    """Least recently used vectors by digest (pool members by source), up to ``limit`` bytes and always the newest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Vector, int]] = OrderedDict()

    def get(self, key: str) -> Vector | None:
        """The vector under a digest or source, now the most recently used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: str, vector: Vector, nbytes: int) -> None:
        """Keep a vector of so many bytes, and drop the least recently used beyond the limit."""
        if key in self._kept:
            self._bytes -= self._kept.pop(key)[1]
        self._kept[key] = vector, nbytes
        self._bytes += nbytes
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def digests(self) -> frozenset[str]:
        """Digests of the recipes whose vectors are kept."""
        return frozenset(key for key in self._kept if not key.startswith(MEMBER))
