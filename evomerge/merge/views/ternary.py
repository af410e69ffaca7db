"""A base with a task vector of three values added, computed while it is read."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.source import Source, View, computed
from evomerge.merge.tensorfile import Array, Floats
from evomerge.merge.ternary import SAMPLE, TernaryFile, base_hash


class TernaryView(View):
    """``theta_0 + scale sgn`` in float32; tensors that the file does not name are the base's.

    Raises:
        PoolError: the file is damaged, or made for another base (which may be noticed only when a tensor is read).
    """

    def __init__(self, path: Path, base: Source) -> None:
        self._vector = TernaryFile(path)
        super().__init__("ternary", (base, self._vector.file))
        self.path = path
        self._base = base
        self.entries = dict(base.entries)
        for name, tensor in self._vector.tensors.items():
            entry = base.entries.get(name)
            if entry is None or entry.shape != tensor.shape or not entry.floating:
                is_there = f"{entry.dtype} {list(entry.shape)}" if entry else "not there"
                raise PoolError(
                    f"{path} changes tensor {name!r} of {list(tensor.shape)}, which is {is_there} in {base.path}; give "
                    "the base that it was written for"
                )
            self.entries[name] = computed(entry)
        self._check_base = cache(self._compare)

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """The base's own values where nothing is added, else float32."""
        tensor = self._vector.tensors.get(name)
        if tensor is None:
            return self._base.stored(name, start, stop)
        self._check_base(name)
        values: Floats = self._base.floats(name, start, stop)
        values += np.float32(tensor.scale) * self._vector.signs(name, start, start + values.size)
        return values

    def export_dtype(self, name: str) -> str:
        """The base's."""
        return self._base.export_dtype(name)

    def _fingerprint(self, name: str) -> str:
        """Of the base's tensor and what is added: nothing is computed for it."""
        if name not in self._vector.tensors:
            return self._base.fingerprint(name)
        file = self._vector.file
        parts = (file.fingerprint(f"{name}:{part}") for part in ("signs", "starts", "scale", "about"))
        return self._named([self._base.fingerprint(name), *parts])

    def _compare(self, name: str) -> None:
        if base_hash(self._base.floats(name, 0, SAMPLE)) != self._vector.tensors[name].base:
            raise PoolError(
                f"{self.path} was written for a base that differs from {self._base.path} in {name!r}; give that base"
            )
