"""Models, slices and parameters of a mergekit YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.merge.layout import layer_of
from evomerge.merge.pool import ModelPool
from evomerge.recipes.mergekit.filters import filtered
from evomerge.recipes.mergekit.words import Said, Values
from evomerge.recipes.notation import layer_range
from evomerge.settings import PoolSettings


@dataclass(frozen=True, slots=True)
class _Part:
    """Layers ``start:stop`` of the result, and from which layer on they are each model's."""

    start: int
    stop: int
    first: Mapping[str, int]

    def values(self, values: Values) -> Values:
        """Those of its tensors and of all outside the layers, the layers numbered from 0."""
        return dict(self._renumbered(values))

    def _renumbered(self, values: Values) -> Iterator[tuple[str, float]]:
        for name, value in values.items():
            layer = layer_of(name)
            if layer is None:
                yield name, value
            elif self.start <= layer < self.stop:
                parts = name.split(".")
                at = next(at for at, part in enumerate(parts) if part.isdecimal())
                yield ".".join([*parts[:at], str(layer - self.start), *parts[at + 1 :]]), value


def document(said: Said, pool: ModelPool, settings: PoolSettings, models: Mapping[str, str]) -> dict[str, Any]:
    """Method, models or slices, and parameters. ``models`` says where each is.

    Raises:
        Unsayable: filters cannot name the tensors.
    """
    head = {"merge_method": said.method, **({"base_model": models[said.base]} if said.base is not None else {})}
    if not settings.layers:
        depth = _depth(pool)
        listed = [{"model": models[name], **_below(_own(said, name), depth)} for name in said.models]
        return {**head, "models": listed, **_below(said.all, depth, said.flags)}
    slices = []
    for part in _parts(said, pool, settings):
        own = {name: {key: part.values(one) for key, one in _own(said, name).items()} for name in part.first}
        common = {key: part.values(one) for key, one in said.all.items()}
        count = part.stop - part.start
        sources = [
            {
                "model": models[name],
                "layer_range": [first, first + count],
                **_below(own[name], count, numbered=False),
            }
            for name, first in part.first.items()
        ]
        slices.append({"sources": sources, **_below(common, count, numbered=False)})
    return {**head, "slices": slices, **({"parameters": dict(said.flags)} if said.flags else {})}


def _own(said: Said, model: str) -> dict[str, Values]:
    """A model's own parameters; the base has none."""
    return {name: of[model] for name, of in said.each.items() if model in of}


def _below(
    of: Mapping[str, Values], layers: int, flags: Mapping[str, Any] | None = None, *, numbered: bool = True
) -> dict[str, Any]:
    """The key ``parameters``, where there are any."""
    found = {name: filtered(values, layers, numbered=numbered) for name, values in of.items()} | dict(flags or {})
    return {"parameters": found} if found else {}


def _depth(pool: ModelPool) -> int:
    """How many layers the result has."""
    names = pool.checkpoints[pool.reference].entries
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def _parts(said: Said, pool: ModelPool, settings: PoolSettings) -> Iterator[_Part]:
    """Stretches of layers that follow one another in every model."""
    depth = _depth(pool)
    wanted = dict.fromkeys((*((said.base,) if said.base is not None else ()), *said.models))
    layers = {
        name: layer_range(",".join(settings.layers[name])) if name in settings.layers else tuple(range(depth))
        for name in wanted
    }
    start = 0
    for stop in range(1, depth + 1):
        if stop == depth or any(of[stop] != of[stop - 1] + 1 for of in layers.values()):
            yield _Part(start, stop, {name: of[start] for name, of in layers.items()})
            start = stop
