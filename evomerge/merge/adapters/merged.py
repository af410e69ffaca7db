"""What a `FactorOperator` makes of its sources: an adapter, and the model that it makes of its base."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evomerge.candidate import Recipe
from evomerge.errors import RecipeError
from evomerge.merge.adapters.factors import Factors, stretch, total
from evomerge.merge.adapters.port import FactorOperator
from evomerge.merge.adapters.sources import Adapting
from evomerge.merge.blas import one_thread
from evomerge.merge.layout import Slot
from evomerge.merge.once import Once
from evomerge.merge.operators.port import Arrays, Values
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.rows import Checked
from evomerge.merge.stream import Stream
from evomerge.merge.tensorfile import Floats


@dataclass(frozen=True, eq=False)
class Sources:
    """What is merged over which base, and the memories of whoever merges: what pools know on disk, results here."""

    base: Stream
    adapters: tuple[Adapting, ...]
    cache: PoolCache
    results: Once


class MergedAdapter(Stream):
    """``theta_0 + Delta W``, each tensor's factors merged when it is first read. ``segments`` tile every group."""

    def __init__(self, recipe: Recipe, merge: FactorOperator, segments: Sequence[Checked], sources: Sources) -> None:
        self.key = recipe.digest
        self._recipe = recipe
        self._merge = merge
        self._segments = segments
        self._of = sources

    @cached_property
    def modules(self) -> Collection[str]:
        """Names of the tensors that any source changes."""
        return frozenset().union(*(source.modules for source in self._of.adapters))

    def read(self, slot: Slot, start: int, stop: int) -> Floats:
        """The base's values, and segment by segment what is added to them."""
        out = self._of.base.read(slot, start, stop)
        for low, high, values in self._stretches(slot, start, stop):
            factors = self._result(slot, values)
            if factors is not None:
                out[low - start : high - start] += factors.values(low, high)
        return out

    def prepare(self, slot: Slot) -> None:
        """Merge a tensor's factors."""
        for _, _, values in self._stretches(slot, 0, slot.size):
            self._result(slot, values)

    def forget(self) -> None:
        """All merged factors."""
        self._of.results.clear()

    @property
    def nbytes(self) -> int:
        """Of its segments and their values."""
        return 4000 + sum(1000 + 100 * len(values.flat) for _, values in self._segments)

    def factors(self, slot: Slot) -> Factors | None:
        """The merged adapter's factors for one tensor.

        A tensor that lies in several segments has the sum of their stretches, of all their ranks together.
        """
        terms: list[Factors] = []
        for low, high, values in self._stretches(slot, 0, slot.size):
            factors = self._result(slot, values)
            if factors is not None:
                terms += [factors] if high - low == slot.size else stretch(factors, low, high)
        return terms[0] if len(terms) == 1 else total([(1.0, term) for term in terms])

    def fingerprint(self, slot: Slot) -> str:
        """By content: what is done, and to what."""
        parts = [self.key, self._of.base.fingerprint(slot), *(source.fingerprint(slot) for source in self._of.adapters)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def _stretches(self, slot: Slot, start: int, stop: int) -> list[tuple[int, int, Values]]:
        """Where elements ``start:stop`` of a tensor have which values."""
        if slot.name not in self.modules:
            return []
        found = [
            (max(segment.start - slot.offset, start), min(segment.stop - slot.offset, stop), values)
            for segment, values in self._segments
            if segment.group == slot.group
        ]
        return [one for one in found if one[0] < one[1]]

    def _result(self, slot: Slot, values: Values) -> Factors | None:
        return self._of.results.get((self.key, slot.name, values), lambda: self._compute(slot, values))

    def _compute(self, slot: Slot, values: Values) -> Factors | None:
        module = _Module(slot, self._of)
        if all(factors is None for factors in module.factors):
            return None
        if self._merge.equal_ranks:
            self._require_equal_ranks(module)
        with one_thread(), np.errstate(over="ignore"):
            factors = self._merge.merge(module, values)
        if factors is None or not factors.rank:
            return None
        if not (np.isfinite(factors.B).all() and np.isfinite(factors.A).all()):
            raise RecipeError(
                f"{self._recipe.operator} gives values beyond float32 for {slot.name!r}; lower its weights"
            )
        return factors

    def _require_equal_ranks(self, module: _Module) -> None:
        ranks = {
            name: factors.rank
            for name, factors in zip(self._recipe.sources[1:], module.factors, strict=True)
            if factors is not None
        }
        if len(set(ranks.values())) > 1:
            told = ", ".join(f"{rank} in {name}" for name, rank in ranks.items())
            raise RecipeError(
                f"{self._recipe.operator} needs equal ranks, but that of {module.name!r} is {told}; use lora_cat or "
                "lora_svd instead"
            )


class _Module:
    """One tensor of the base, and what each source adds to it."""

    def __init__(self, slot: Slot, sources: Sources) -> None:
        self.name = slot.name
        self.shape = (slot.shape[0], math.prod(slot.shape[1:]))
        self._slot = slot
        self._of = sources

    @cached_property
    def factors(self) -> tuple[Factors | None, ...]:
        """One per source."""
        return tuple(source.factors(self._slot) for source in self._of.adapters)

    def remember(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """Arrays by key and content, from the pool's cache."""
        content = [source.fingerprint(self._slot) for source in self._of.adapters]
        return self._of.cache.get("\n".join([key, *content]), compute)
