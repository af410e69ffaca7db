"""Where a tensor of the result comes from: its slice, how deep it lies there, and what each input calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from evomerge.merge.layout import layer_of
from evomerge.recipes.mergekit.config import Slice
from evomerge.recipes.mergekit.quantity import Where

_EMBEDDINGS = re.compile(r"(embed(?!_out)|\b(wte|wpe)\b)")
"""Tensors before the first layer. All others outside the layers are behind the last one."""


def places(names: Iterable[str], slices: Sequence[Slice]) -> dict[str, Where]:
    """Of each tensor its slice and its place in it."""
    names = list(names)
    layers = 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)
    found = {}
    layered = dict(_layers(slices, layers))
    for name in names:
        layer = layer_of(name)
        if layer is not None and layer in layered:
            at, step, steps = layered[layer]
            own = {one.model: _renumbered(name, step, one.layers) for one in slices[at].inputs}
            found[name] = Where(name, own, at, step, steps)
        else:
            at = 0 if _EMBEDDINGS.search(name) else len(slices) - 1
            found[name] = Where(name, {one.model: name for one in slices[at].inputs}, at)
    return found


def _layers(slices: Sequence[Slice], layers: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Of each layer of the result its slice, its number in the slice, and how many layers that has."""
    first = 0
    for at, part in enumerate(slices):
        count = layers if part.count is None else part.count
        for step in range(count):
            yield first + step, (at, step, count)
        first += count


def _renumbered(name: str, step: int, layers: tuple[int, int] | None) -> str:
    if layers is None:
        return name
    parts = name.split(".")
    at = next(at for at, part in enumerate(parts) if part.isdecimal())
    return ".".join([*parts[:at], str(layers[0] + step), *parts[at + 1 :]])
