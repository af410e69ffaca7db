"""A base with a LoRA adapter merged in, computed while it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.kinds import is_embeddings
from evomerge.merge.once import Once
from evomerge.merge.source import CHUNK, View, computed
from evomerge.merge.tensorfile import Array, Entry, Floats, chunks
from evomerge.merge.tokens import files, replacing
from evomerge.merge.views.adapter import Adapter, Change, LowRank

_HELD = 4
"""Tensors whose factors are kept in memory: threads read few at a time."""


@dataclass(frozen=True)
class _Ready:
    """One tensor's factors in memory, the scale within ``left``, and DoRA's gains per row or per column."""

    left: Floats
    right: Floats
    gains: Floats | None = None
    by_row: bool = True


class Adapted(View):
    """``theta_0 + s B A`` (Hu et al. 2021, arXiv:2106.09685), and what else the adapter changes, in float32.

    Every element is its own sum over the rank, left to right, so its value does not depend on how the tensor is cut.
    With magnitudes ``m`` it is ``m V / ||V||`` of ``V = theta_0 + s B A`` (DoRA), the norms taken in float64.
    """

    def __init__(self, adapter: Adapter) -> None:
        changes = sorted(adapter.changes.items())
        super().__init__(f"adapter {changes!r}", (adapter.base, adapter.file))
        self.adapter = adapter
        self.base = adapter.base
        self.path = adapter.folder
        self.entries = {name: self._entry(name) for name in self.base.entries}
        self.notes = (*self.base.notes, *_notes(adapter))
        self._ready = Once(_HELD)

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """The base's or the adapter's own values where nothing is computed, else float32."""
        change = self.adapter.changes.get(name)
        if change is None:
            return self.base.stored(name, start, stop)
        if change.whole is not None and not change.computes:
            return self.adapter.file.stored(change.whole, start, stop)
        return self._computed(name, change, start, self.entries[name].size if stop is None else stop)

    def describe(self) -> str:
        """The adapter's rank, and its base where that is not the pool's."""
        ranks = sorted({factors.rank for factors in self.adapter.modules.values()})
        rank = " to ".join(map(str, dict.fromkeys([ranks[0], ranks[-1]]))) if ranks else "0"
        return f"LoRA of rank {rank} over {self.base.path.name}"

    @property
    def tokenizer_folder(self) -> Path:
        """The adapter's, where it has both a tokenizer and embeddings of its own."""
        return self.adapter.folder if self._resized() and files(self.adapter.folder) else self.base.tokenizer_folder

    def config(self) -> dict[str, Any]:
        """The base's, with as many tokens as the adapter's embeddings have rows."""
        config, rows = self.base.config(), self._resized()
        return {**config, "vocab_size": rows} if rows and "vocab_size" in config else config

    def overlay(self) -> Mapping[str, bytes | None]:
        """The adapter's tokenizer, where it is its own."""
        return {**self.base.overlay(), **replacing(self.tokenizer_folder, self.base.folder)}

    def _resized(self) -> int | None:
        """Rows of the embeddings that the adapter brings."""
        for name, change in self.adapter.changes.items():
            if change.whole is not None and is_embeddings(name):
                return self.entries[name].shape[0]
        return None

    def export_dtype(self, name: str) -> str:
        """The base's."""
        return self.base.export_dtype(name)

    def _fingerprint(self, name: str) -> str:
        """Of the base's tensor, the adapter's and their use: nothing is computed for it."""
        change = self.adapter.changes.get(name)
        if change is None:
            return self.base.fingerprint(name)
        factors = change.factors
        used = (change.whole, change.bias, change.magnitude, *((factors.first, factors.second) if factors else ()))
        file = self.adapter.file
        return self._named([repr(change), self.base.fingerprint(name), *(file.fingerprint(one) for one in used if one)])

    def _entry(self, name: str) -> Entry:
        entry, change = self.base.entries[name], self.adapter.changes.get(name)
        if change is None:
            return entry
        if change.whole is not None:
            entry = replace(self.adapter.file.entries[change.whole], name=name)
        return computed(entry) if change.computes else entry

    def _computed(self, name: str, change: Change, start: int, stop: int) -> Floats:
        factors = change.factors
        ready = None if factors is None else self._ready.get(name, lambda: self._prepare(name, change, factors))
        values = self._sum(name, change, ready, start, stop)
        if ready is not None and ready.gains is not None:
            at, columns = np.arange(start, stop), ready.right.shape[1]
            values *= ready.gains[at // columns if ready.by_row else at % columns]
        return values

    def _sum(self, name: str, change: Change, ready: _Ready | None, start: int, stop: int) -> Floats:
        """``theta_0 + s B A``, and biases."""
        file = self.adapter.file
        values = self.base.floats(name, start, stop) if change.whole is None else file.floats(change.whole, start, stop)
        if ready is not None and start < stop:
            from evomerge.merge.kernels.lowrank import product

            delta = np.empty(stop - start, dtype=np.float32)
            product(ready.left, ready.right, start, delta)
            values += delta
        if change.bias is not None:
            bias = file.floats(change.bias, start, stop)
            bias *= np.float32(change.bias_scale)
            values += bias
        return values

    def _prepare(self, name: str, change: Change, factors: LowRank) -> _Ready:
        left = factors.B
        left *= np.float32(factors.scale)
        ready = _Ready(left, factors.A)
        if change.magnitude is None:
            return ready
        by_row = factors.form == "linear"
        norms = self._norms(name, change, ready, by_row)
        if not norms.all():
            raise PoolError(
                f"{self.adapter.file.path}: tensor {change.magnitude!r} scales {name!r}, but row or column "
                f"{int(np.argmin(norms))} of that is zero; give the base that the adapter was trained on"
            )
        gains = self.adapter.file.floats(change.magnitude) / norms
        return replace(ready, gains=gains.astype(np.float32), by_row=by_row)

    def _norms(self, name: str, change: Change, ready: _Ready, by_row: bool) -> NDArray[np.float64]:
        """``||V||`` of every row, or of every column, read in whole rows and always cut in the same way."""
        rows, columns = len(ready.left), ready.right.shape[1]
        squares = np.zeros(rows if by_row else columns)
        for first, last in chunks(rows, max(1, CHUNK // columns)):
            values = self._sum(name, change, ready, first * columns, last * columns).astype(np.float64)
            values = values.reshape(-1, columns) ** 2
            if by_row:
                squares[first:last] = values.sum(axis=1)
            else:
                squares += values.sum(axis=0)
        return np.sqrt(squares)


def _notes(adapter: Adapter) -> tuple[str, ...]:
    """Whether the base goes by another name than the one that the adapter was trained on."""
    wanted = Path(adapter.config.base).name
    base = adapter.base
    called = str(base.config().get("_name_or_path") or "")
    names = {part.rpartition("--")[2] for part in base.path.parts if part.startswith("models--")}
    if not wanted or wanted.casefold() in {one.casefold() for one in (base.path.name, Path(called).name, *names)}:
        return ()
    return (f"was trained on {adapter.config.base}, and is merged into {base.path}; make sure that they are the same",)
