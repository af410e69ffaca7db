"""Where a merge's factors come from: adapters of the pool, read once for all who merge them, or earlier merges."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Protocol

import numpy as np

from evomerge.errors import PoolError, RecipeError
from evomerge.merge.adapters.factors import Factors
from evomerge.merge.layout import Slot
from evomerge.merge.once import Once
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import CHUNK
from evomerge.merge.tensorfile import chunks
from evomerge.merge.views.adapter import Adapter, LowRank

_MODULES = 8
"""Factors are kept for so many tensors of each adapter: candidates built together read them once."""


class Factored(Protocol):
    """What changes a base by factors."""

    def factors(self, slot: Slot) -> Factors | None:
        """How it changes a tensor, ``None`` if it leaves it alone."""


class Adapting(Factored, Protocol):
    """What can be merged with others of its kind."""

    @property
    def modules(self) -> Collection[str]:
        """Names of the tensors that it may change."""

    def fingerprint(self, slot: Slot) -> str:
        """Names the content of one tensor's factors."""


class Members:
    """The pool's adapters, by source."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._read = Once(_MODULES * len(pool.sources))
        self._found: dict[str, Member] = {}

    def get(self, source: str) -> Member:
        """One of them.

        Raises:
            RecipeError: it is no adapter over the pool's base, or changes merged tensors in other ways, too.
        """
        if source not in self._found:
            self._found[source] = Member(self._pool, source, self._read)
        return self._found[source]


class Member:
    """An adapter of the pool."""

    def __init__(self, pool: ModelPool, source: str, read: Once) -> None:
        self._source = source
        self._adapter: Adapter = pool.adapter(source)
        self._read = read
        _require_factors_alone(pool, source, self._adapter)

    @property
    def modules(self) -> Collection[str]:
        """Names of the tensors that it changes."""
        return self._adapter.modules.keys()

    def factors(self, slot: Slot) -> Factors | None:
        """From its file, or from memory.

        Raises:
            PoolError: NaN or infinity in them.
        """
        stored = self._adapter.modules.get(slot.name)
        return None if stored is None else self._read.get((self._source, slot.name), lambda: self._load(stored))

    def fingerprint(self, slot: Slot) -> str:
        """By content, wherever the file is."""
        stored = self._adapter.modules.get(slot.name)
        if stored is None:
            return "-"
        content = [stored.file.fingerprint(name) for name in (stored.first, stored.second)]
        return json.dumps([*content, stored.scale, stored.form])

    def _load(self, stored: LowRank) -> Factors:
        factors = Factors(stored.B, stored.A, stored.scale)
        if not (np.isfinite(factors.B).all() and np.isfinite(factors.A).all()):
            broken = [name for name in (stored.first, stored.second) if stored.file.first_not_finite(name)]
            raise PoolError(
                f"{self._source}: tensor {' and '.join(map(repr, broken))} holds NaN or infinity ({stored.file.path}); "
                "the training run probably diverged, drop the adapter or take an earlier checkpoint"
            )
        return factors


def _require_factors_alone(pool: ModelPool, source: str, adapter: Adapter) -> None:
    merged = {slot.name for slot in pool.layout.slots}
    for name, change in adapter.changes.items():
        others = {
            "replaces {} as a whole (modules_to_save)": change.whole,
            "adds a bias to {}": change.bias,
            "rescales {} (DoRA)": change.magnitude,
        }
        if change.whole is not None and _is_copy(adapter, name, change.whole):
            del others["replaces {} as a whole (modules_to_save)"]
        for what, tensor in others.items():
            if tensor is not None and name in merged:
                raise RecipeError(
                    f"{source} {what.format(repr(name))}, which operators on factors cannot merge; use one on whole "
                    "weights, such as task_arithmetic, or list the tensor in pool.exclude"
                )


def _is_copy(adapter: Adapter, name: str, tensor: str) -> bool:
    """Whether a tensor in an adapter's file is the base's own, as PEFT saves beside the factors of embeddings."""
    mine, theirs = adapter.file.entries[tensor], adapter.base.entries[name]
    return mine.shape == theirs.shape and all(
        np.array_equal(adapter.file.floats(tensor, start, stop), adapter.base.floats(name, start, stop))
        for start, stop in chunks(mine.size, CHUNK)
    )
