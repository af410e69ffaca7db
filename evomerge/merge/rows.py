"""From a recipe's segments to rows of coefficients: where recipes are checked and linear operators are called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge.layout import Layout, layer_of
from evomerge.merge.operators.port import LinearOperator, Operator, Scope, Values
from evomerge.merge.pool import ModelPool
from evomerge.merge.vectors import Geometry, Row, V, angle

Checked = tuple[Segment, Values]


def checked(recipe: Recipe, merge: Operator, layout: Layout) -> list[Checked]:
    """The recipe's segments that are not empty, with their values by name.

    Raises:
        RecipeError: the recipe does not fit the groups or its operator.
    """
    merge.check_sources(len(recipe.sources))
    if not recipe.sources and recipe.noise is None:
        raise RecipeError("a recipe without sources needs noise, or there is nothing to build from")
    sizes = {group.name: group.size for group in layout.groups}
    reached = dict.fromkeys(sizes, 0)
    found: list[Checked] = []
    for segment in recipe.segments:
        if reached.get(segment.group) != segment.start or segment.stop < segment.start:
            raise RecipeError(f"{_place(segment)} does not continue group {segment.group!r} of this pool")
        reached[segment.group] = segment.stop
        if segment.stop > segment.start:
            try:
                found.append((segment, merge.values(segment.values, len(recipe.sources))))
            except RecipeError as error:
                raise RecipeError(f"{_place(segment)}: {error}") from error
    if reached != sizes:
        raise RecipeError(f"the segments end at {reached}, but the pool's groups have sizes {sizes}")
    return found


def rows(
    recipe: Recipe, merge: LinearOperator, pool: ModelPool, engine: Geometry[V], sources: Sequence[V]
) -> Iterator[Row]:
    """Check a recipe against a pool, and turn each segment's values into coefficients of its sources.

    Raises:
        RecipeError: the recipe does not fit the groups or its operator.
    """
    stretch = _Stretch(recipe, pool, engine, sources)
    segments = checked(recipe, merge, pool.layout)
    for segment, values in _by_tensor(segments, pool) if merge.per_tensor else segments:
        stretch.enter(segment)
        coefficients = merge.coefficients(values, stretch)
        if len(coefficients) != len(sources) or not all(map(math.isfinite, coefficients)):
            raise RecipeError(f"{_place(segment)}: values {segment.values} give coefficients {coefficients}")
        yield segment.group, segment.start, segment.stop, coefficients


def _by_tensor(segments: Sequence[Checked], pool: ModelPool) -> Iterator[Checked]:
    """The segments cut at the boundaries of tensors."""
    for segment, values in segments:
        for slot in pool.slots[segment.group]:
            start, stop = max(segment.start, slot.offset), min(segment.stop, slot.offset + slot.size)
            if start < stop:
                yield Segment(segment.group, start, stop, segment.values), values


class _Stretch(Generic[V]):
    """The geometry of a recipe's sources; what is global is computed once."""

    def __init__(self, recipe: Recipe, pool: ModelPool, engine: Geometry[V], sources: Sequence[V]) -> None:
        self._recipe = recipe
        self._pool = pool
        self._engine = engine
        self._vectors = sources
        self._whole_angle: tuple[float | None] | None = None
        self._whole_gram: NDArray[np.float64] | None = None
        self._part = ("", 0, 0)
        self.sources = len(sources)
        self.layers = pool.layout.layers

    def enter(self, segment: Segment) -> None:
        """Move to another segment."""
        self._part = segment.group, segment.start, segment.stop

    @property
    def tensor(self) -> str | None:
        group, start, stop = self._part
        slot = self._pool.slot_at(group, start)
        return slot.name if stop <= slot.offset + slot.size else None

    @property
    def layer(self) -> int | None:
        name = self.tensor
        return None if name is None else layer_of(name)

    def angle(self, scope: Scope) -> float | None:
        one, two = self._vectors[:2]
        if scope == "per_segment":
            return angle(self._engine, one, two, self._part)
        if self._whole_angle is None:
            self._whole_angle = (angle(self._engine, one, two, None),)
        return self._whole_angle[0]

    def gram(self, scope: Scope) -> NDArray[np.float64]:
        if scope == "per_segment":
            return self._inner(self._part)
        if self._whole_gram is None:
            self._whole_gram = self._inner(None)
        return self._whole_gram

    def _inner(self, part: tuple[str, int, int] | None) -> NDArray[np.float64]:
        matrix = np.empty((self.sources, self.sources))
        for i, one in enumerate(self._vectors):
            for j in range(i + 1):
                matrix[i, j] = matrix[j, i] = self._engine.inner(one, self._vectors[j], part)
        return matrix

    def attached(self, kind: str) -> tuple[float, ...]:
        return tuple(self._pool.number(source.removeprefix(MEMBER), kind) for source in self._recipe.sources)


def _place(segment: Segment) -> str:
    return f"segment {segment.group}[{segment.start}:{segment.stop}]"
