"""The builder: recipes in, vectors or live models out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evomerge.candidate import ANCESTOR, MEMBER, Recipe
from evomerge.errors import RecipeError
from evomerge.merge.adapters.engine import AdapterEngine
from evomerge.merge.adapters.merged import MergedAdapter
from evomerge.merge.adapters.port import FactorOperator
from evomerge.merge.bind import Target
from evomerge.merge.cache import Vector, VectorCache
from evomerge.merge.dense import Dense, DenseEngine
from evomerge.merge.layout import Slot
from evomerge.merge.materialize import Materializer
from evomerge.merge.merged import Merged
from evomerge.merge.operators.port import LinearOperator, TensorOperator, operator
from evomerge.merge.pieces import Sources
from evomerge.merge.pool import ModelPool
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.rows import checked, rows
from evomerge.merge.stream import Stream, StreamEngine, Weighted, held
from evomerge.merge.table import Table, TableEngine
from evomerge.merge.tensorfile import Floats
from evomerge.merge.vectors import Engine, Room

Mode = Literal["auto", "table", "dense"]

_SMALL = 64
"""``auto`` is dense where the cache holds so many vectors: an archive, its children and some of the past."""


class UnknownAncestors(RecipeError):
    """A recipe's ancestry goes beyond what was given and what is ``cached`` (digests): send the ``missing`` too."""

    def __init__(self, missing: frozenset[str], cached: frozenset[str]) -> None:
        super().__init__(
            f"the recipes of {len(missing)} ancestors are needed, such as {min(missing)}; give them as well"
        )
        self.missing = missing
        self.cached = cached


class Builder:
    """Resolves recipes over one pool, with a cache of ``cache_bytes`` by digest.

    ``table`` resolves to coefficients and refuses noise, ``dense`` to float32 vectors. ``auto`` is dense where the
    cache holds 64 of the pool's vectors, and otherwise coefficients as long as no noise is in the ancestry. The choice
    depends on the recipe and these settings only, so equal digests build equal bytes. ``gram_cache`` is a folder;
    ``threads`` are used where there is much to write, and change no byte.

    Raises:
        PoolError: the pool's models do not fit together.
    """

    def __init__(
        self,
        pool: ModelPool,
        mode: Mode = "auto",
        cache_bytes: int = 64 << 20,
        gram_cache: Path | None = None,
        threads: int = 1,
    ) -> None:
        pool.check()
        self.pool = pool
        small = 4 * pool.size <= cache_bytes // _SMALL
        self.mode: Mode = "dense" if mode == "auto" and small else mode
        self._dense = DenseEngine(pool)
        self._table = TableEngine(pool, gram_cache, threads)
        self._stream = StreamEngine(pool)
        self._kept = PoolCache(gram_cache and gram_cache / "pools")
        self.adapters = AdapterEngine(pool, self._kept)
        self._cache = VectorCache(cache_bytes)
        self.materializer = Materializer(self._engine, pool.layout.slots, threads)

    def resolve(self, recipe: Recipe, ancestors: Sequence[Recipe] = ()) -> Vector:
        """The recipe's vector, from the cache or built; ``ancestors`` oldest first, where they are not cached.

        Memory is bounded by the ancestors that something still needs, however long the ancestry.

        Raises:
            UnknownAncestors: a source is neither cached nor among the ancestors.
            RecipeError: the recipe does not fit the pool or its operator.
            PoolError: a pool member holds NaN or infinity.
        """
        found = self._cache.get(recipe.digest)
        if found is not None:
            return found
        sources = {digest: self._cache.get(digest) for digest in recipe.ancestors}
        present = {digest: vector for digest, vector in sources.items() if vector is not None}
        if len(present) < len(sources):
            present = self._build_ancestors(recipe, ancestors)
        return self._build(recipe, present)

    def write(self, vector: Vector, target: Target) -> None:
        """Put a resolved recipe into a bound model, in place and without a second copy of it."""
        self.materializer.write([vector], [target])

    def write_many(self, vectors: Sequence[Vector], targets: Sequence[Target]) -> None:
        """Put resolved recipes into as many bound models, in one pass over the pool: the bytes of one by one."""
        self.materializer.write(vectors, targets)

    def chunks(self, vector: Vector, slot: Slot) -> Iterator[tuple[int, Floats]]:
        """A merged tensor piece by piece: flat index of the first, and new float32 values."""
        for start, stop in self._engine(vector).cuts(vector, slot):
            yield start, self.read(vector, slot, start, stop)

    def read(self, vector: Vector, slot: Slot, start: int, stop: int) -> Floats:
        """Elements ``start:stop`` of a flattened merged tensor, as a new float32 array."""
        values: Floats = self._engine(vector).read(vector, slot, start, stop)
        return values

    def _build_ancestors(self, recipe: Recipe, given: Sequence[Recipe]) -> dict[str, Vector]:
        """The recipe's sources, after building whatever of its ancestry is not cached, oldest first."""
        known = {one.digest: one for one in given}
        live, wanted, missing = self._needed(recipe, known)
        if missing:
            raise UnknownAncestors(frozenset(missing), self._cache.digests())
        order = [one for digest, one in known.items() if digest in wanted]
        uses = Counter(digest for one in (*order, recipe) for digest in set(one.ancestors))
        for one in order:
            late = [digest for digest in one.ancestors if digest not in live]
            if late:
                raise RecipeError(
                    f"ancestor {one.digest} was given before its own ancestor {late[0]}; give oldest first"
                )
            live[one.digest] = self._build(one, live)
            for digest in set(one.ancestors):
                uses[digest] -= 1
                if not uses[digest]:
                    del live[digest]
        return live

    def _needed(self, recipe: Recipe, known: Mapping[str, Recipe]) -> tuple[dict[str, Vector], set[str], set[str]]:
        """Walk the ancestry: cached vectors (held, lest the cache drop them), digests to build, and digests unknown."""
        held: dict[str, Vector] = {}
        wanted: set[str] = set()
        missing: set[str] = set()
        open_ends = list(recipe.ancestors)
        while open_ends:
            digest = open_ends.pop()
            if digest in held or digest in wanted or digest in missing:
                continue
            vector = self._cache.get(digest)
            if vector is not None:
                held[digest] = vector
            elif digest in known:
                wanted.add(digest)
                open_ends.extend(known[digest].ancestors)
            else:
                missing.add(digest)
        return held, wanted, missing

    def _build(self, recipe: Recipe, built: Mapping[str, Vector]) -> Vector:
        merge = operator(recipe.operator, recipe.options)
        sources = [self._source(source, built) for source in recipe.sources]
        if isinstance(merge, LinearOperator):
            vector = self._combine(recipe, merge, sources)
        elif isinstance(merge, TensorOperator):
            vector = self._merge(recipe, merge, sources)
        elif isinstance(merge, FactorOperator):
            streams = self._streams(recipe.sources, sources)
            vector = self._mutated(recipe, self.adapters.merge(recipe, merge, streams))
        else:
            raise RecipeError(f"operator {recipe.operator!r} is of no kind that can be built: {type(merge).__name__}")
        if self.mode == "dense" and not isinstance(vector, MergedAdapter):  # which others may take factors from
            vector = self._densify(vector)
        self._cache.put(recipe.digest, vector, self._engine(vector).nbytes(vector))
        return vector

    def _combine(self, recipe: Recipe, merge: LinearOperator, sources: Sequence[Vector]) -> Vector:
        """A linear operator, in the engine that can hold the result."""
        if self.mode == "dense" or (
            self.mode == "auto"
            and (recipe.noise is not None or any(isinstance(source, Dense) for source in sources))
            and not any(isinstance(source, Stream) for source in sources)
        ):
            dense = [self._densify(source) for source in sources]
            return self._dense.combine(dense, list(rows(recipe, merge, self.pool, self._dense, dense)), recipe.noise)
        tables = [source for source in sources if isinstance(source, Table)]
        if len(tables) == len(sources):
            found = list(rows(recipe, merge, self.pool, self._table, tables))
            return self._table.combine(tables, found, recipe.noise)
        streams = self._streams(recipe.sources, sources)
        with self.materializer.reading(streams):
            found = list(rows(recipe, merge, self.pool, self._stream, streams))
        return Weighted(recipe.digest, streams, found, recipe.noise)

    def _merge(self, recipe: Recipe, merge: TensorOperator, sources: Sequence[Vector]) -> Stream:
        """A tensor operator, and the noise on top of it."""
        segments = checked(recipe, merge, self.pool.layout)
        of = Sources(self.pool, recipe.sources, self._streams(recipe.sources, sources), self._kept)
        return self._mutated(recipe, Merged(recipe.digest, merge, of, segments, self.materializer.threads))

    def _mutated(self, recipe: Recipe, merged: Stream) -> Stream:
        """With the recipe's noise on top."""
        if recipe.noise is None:
            return merged
        ones = [(group.name, 0, group.size, (1.0,)) for group in self.pool.groups]
        return Weighted(f"{recipe.digest}+noise", [merged], ones, recipe.noise)

    def _streams(self, names: Sequence[str], sources: Sequence[Vector]) -> tuple[Stream, ...]:
        """The sources as streams; pool members by their files, whatever holds them now."""
        return tuple(
            self._stream.member(name.removeprefix(MEMBER))
            if name.startswith(MEMBER)
            else held(self._engine(source), source, name)
            for name, source in zip(names, sources, strict=True)
        )

    def _source(self, source: str, built: Mapping[str, Vector]) -> Vector:
        if not source.startswith(MEMBER):
            try:
                return built[source.removeprefix(ANCESTOR)]
            except KeyError:
                raise RecipeError(f"unknown source {source!r}; write pool:NAME or recipe:DIGEST") from None
        found = self._cache.get(source)
        if found is not None:
            return found
        name = source.removeprefix(MEMBER)
        if name not in self.pool.sources:
            raise RecipeError(f"the pool has no member {name!r}; it has {', '.join(self.pool.sources)}")
        engine: Engine[Any] = self._dense if self.mode == "dense" else self._table
        vector: Vector = engine.member(name)
        self._cache.put(source, vector, engine.nbytes(vector))
        return vector

    def _densify(self, vector: Vector) -> Dense:
        if isinstance(vector, Dense):
            return vector
        out = np.empty(self.pool.size, dtype=np.float32)
        rooms = {}
        for slot in self.pool.layout.slots:
            at = self.pool.layout.starts[slot.group] + slot.offset
            rooms[slot.name] = Room([out[at : at + slot.size]], "F32")
        self.materializer.fill_all([vector], rooms)
        return Dense(out)

    def _engine(self, vector: Vector) -> Any:
        if isinstance(vector, Stream):
            return self._stream
        return self._dense if isinstance(vector, Dense) else self._table
