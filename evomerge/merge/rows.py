"""From a recipe's segments to rows of coefficients: where recipes are checked and operators are called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Scope, operator
from evomerge.merge.vectors import Engine, Row, V, angle


def rows(recipe: Recipe, sizes: Mapping[str, int], engine: Engine[V], sources: Sequence[V]) -> Iterator[Row]:
    """Check a recipe against groups of these sizes, and turn each segment's values into coefficients of its sources.

    Raises:
        RecipeError: the recipe does not fit the groups or its operator.
    """
    merge = operator(recipe.operator, recipe.options)
    merge.check_sources(len(sources))
    if not sources and recipe.noise is None:
        raise RecipeError("a recipe without sources needs noise, or there is nothing to build from")
    width = merge.width(len(sources))
    angles = _Angles(engine, sources)
    reached = dict.fromkeys(sizes, 0)
    for segment in recipe.segments:
        if reached.get(segment.group) != segment.start or segment.stop < segment.start:
            raise RecipeError(f"{_place(segment)} does not continue group {segment.group!r} of this pool")
        reached[segment.group] = segment.stop
        if len(segment.values) != width:
            raise RecipeError(f"{_place(segment)} has {len(segment.values)} values, {recipe.operator} needs {width}")
        if segment.stop > segment.start:
            angles.part = segment.group, segment.start, segment.stop
            coefficients = merge.coefficients(segment.values, angles)
            if len(coefficients) != len(sources) or not all(map(math.isfinite, coefficients)):
                raise RecipeError(f"{_place(segment)}: values {segment.values} give coefficients {coefficients}")
            yield segment.group, segment.start, segment.stop, coefficients
    if reached != sizes:
        raise RecipeError(f"the segments end at {reached}, but the pool's groups have sizes {sizes}")


class _Angles(Generic[V]):
    """The angle between a recipe's two sources; the global one is computed once."""

    def __init__(self, engine: Engine[V], sources: Sequence[V]) -> None:
        self._engine = engine
        self._sources = sources
        self._whole: tuple[float | None] | None = None
        self.part: tuple[str, int, int] = ("", 0, 0)

    def __call__(self, scope: Scope) -> float | None:
        one, two = self._sources
        if scope == "per_segment":
            return angle(self._engine, one, two, self.part)
        if self._whole is None:
            self._whole = (angle(self._engine, one, two, None),)
        return self._whole[0]


def _place(segment: Segment) -> str:
    return f"segment {segment.group}[{segment.start}:{segment.stop}]"
