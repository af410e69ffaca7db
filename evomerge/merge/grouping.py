"""Ways to divide a model's tensors into parameter groups, so that a search has a few dimensions for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from evomerge.errors import PoolError
from evomerge.merge.kinds import kind_of, layer_of

Groups = dict[str, list[str]]
"""Names of tensors by group, in order."""

Importance = Callable[[Sequence[str]], Mapping[str, float]]
"""How much each of some tensors matters."""

WHOLE = "all"
"""Name of the only group where nothing is divided."""

WAYS = "whole, tensor, layer, blocks:K, kind, kind_and_layer or importance:K"

_BEFORE = re.compile(r"(^|[._])((\w*_)?embed\w*|wte|wpe|shared|cls_token)($|[._])")


def grouped(names: Sequence[str], way: str, importance: Importance) -> Groups:
    """The tensors ``names``, given in the order of parameters, group by group.

    Groups of layers come in the order of the layers, others in the order of their first tensor.

    Raises:
        PoolError: no such way, or more groups than layers.
    """
    kind, _, count = way.partition(":")
    if kind in ("blocks", "importance"):
        return _blocks(names, _count(way, count), importance if kind == "importance" else None)
    if count or kind not in _SIMPLE:
        raise PoolError(f"pool.grouping is {way!r}; give {WAYS}")
    return _SIMPLE[kind](names)


def _count(way: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < len(text) < 9 or int(text) < 1:
        raise PoolError(f"pool.grouping is {way!r}; give a whole number > 0 after the colon, as in blocks:4")
    return int(text)


def _by(names: Sequence[str], group: Callable[[str], str]) -> Groups:
    found: Groups = {}
    for name in names:
        found.setdefault(group(name), []).append(name)
    return found


def _by_layer(names: Sequence[str]) -> Groups:
    """``before`` the layers, ``layer_0``, ..., and ``after`` them."""
    found = _by(names, _layer)
    layers = sorted(layer for name in names if (layer := layer_of(name)) is not None)
    order = ["before", *(f"layer_{layer}" for layer in dict.fromkeys(layers)), "after"]
    return {group: found[group] for group in order if group in found}


def _layer(name: str) -> str:
    layer = layer_of(name)
    if layer is not None:
        return f"layer_{layer}"
    return "before" if _BEFORE.search(name) else "after"


def _kind_and_layer(name: str) -> str:
    layer = layer_of(name)
    return kind_of(name) if layer is None else f"layer_{layer}.{kind_of(name)}"


_SIMPLE: Mapping[str, Callable[[Sequence[str]], Groups]] = {
    "whole": lambda names: {WHOLE: list(names)},
    "tensor": lambda names: {name: [name] for name in names},
    "layer": _by_layer,
    "kind": lambda names: _by(names, kind_of),
    "kind_and_layer": lambda names: _by(names, _kind_and_layer),
}


def _blocks(names: Sequence[str], count: int, importance: Importance | None) -> Groups:
    """``block_0``, ...: neighbouring layers, what is before them with the first and what is after with the last."""
    layers = _by_layer(names)
    before, after = layers.pop("before", []), layers.pop("after", [])
    if count > len(layers):
        raise PoolError(f"pool.grouping wants {count} blocks, but only {len(layers)} layers are merged; ask for fewer")
    if importance is None:
        weights = [1.0] * len(layers)
    else:
        of = importance([name for layer in layers.values() for name in layer])
        weights = [sum(of[name] for name in layer) for layer in layers.values()]
    parts = [[name for layer in part for name in layer] for part in _divided(list(layers.values()), weights, count)]
    parts[0] = [*before, *parts[0]]
    parts[-1] += after
    return {f"block_{at}": part for at, part in enumerate(parts)}


def _divided(layers: list[list[str]], weights: list[float], count: int) -> list[list[list[str]]]:
    """Cut a list into runs whose sums of weights are as even as can be: the least sum of squares (dynamic programming).

    Of equally good cuts the earliest are taken.
    """
    sums = [0.0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    none: tuple[float, list[int]] = (float("inf"), [])
    best: list[tuple[float, list[int]]] = [(0.0, []), *[none] * len(layers)]
    for _ in range(count):
        best = [
            min(
                ((best[cut][0] + (sums[end] - sums[cut]) ** 2, [*best[cut][1], end]) for cut in range(end)),
                default=none,
                key=lambda found: found[0],
            )
            for end in range(len(layers) + 1)
        ]
    ends = best[-1][1]
    return [layers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
