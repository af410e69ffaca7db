"""From a recipe over adapters to the adapter and the model that it stands for."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate import MEMBER, Recipe
from evomerge.errors import RecipeError
from evomerge.merge.adapters.merged import MergedAdapter, Sources
from evomerge.merge.adapters.port import FactorOperator
from evomerge.merge.adapters.sources import Adapting, Members
from evomerge.merge.once import Once
from evomerge.merge.pool import ModelPool
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.rows import checked
from evomerge.merge.stream import Stream

_RESULTS = 64
"""Merged factors are kept for so many tensors: several candidates are read a few tensors at a time."""


class AdapterEngine:
    """Makes streams of recipes over one pool's adapters. All of them share what is read, and what is kept."""

    def __init__(self, pool: ModelPool, cache: PoolCache) -> None:
        self._pool = pool
        self._cache = cache
        self._results = Once(_RESULTS)
        self.members = Members(pool)

    def merge(self, recipe: Recipe, merge: FactorOperator, streams: Sequence[Stream]) -> MergedAdapter:
        """The recipe's model, without its noise. ``streams`` are its sources.

        Raises:
            RecipeError: the first source is not the pool's base, or another is no adapter over it.
        """
        segments = checked(recipe, merge, self._pool.layout)
        if self._pool.base is None or recipe.sources[0] != MEMBER + self._pool.base:
            raise RecipeError(
                f"{recipe.operator} merges adapters over pool.base, but the first source is {recipe.sources[0]}; "
                f"name the base as pool.base, and {MEMBER}{self._pool.base or 'base'} first"
            )
        adapters = tuple(map(self._adapting, recipe.sources[1:], streams[1:]))
        return MergedAdapter(recipe, merge, segments, Sources(streams[0], adapters, self._cache, self._results))

    def _adapting(self, name: str, stream: Stream) -> Adapting:
        if name.startswith(MEMBER):
            return self.members.get(name.removeprefix(MEMBER))
        if isinstance(stream, MergedAdapter):
            return stream
        raise RecipeError(f"{name} is a whole model and no adapter; merge whole models with task_arithmetic or others")
