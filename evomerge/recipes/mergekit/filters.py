"""Values of single tensors in mergekit's notation: lists along the layers, and filters that are parts of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from evomerge.merge.layout import layer_of
from evomerge.recipes.mergekit.quantity import REST, Inner, Where, first_fit
from evomerge.recipes.mergekit.words import Unsayable

Cases = list[tuple[str, Inner]]


def filtered(values: Mapping[str, float], layers: int, *, numbered: bool = True) -> Any:
    """A number, or a list of filters and values, that mergekit reads as exactly these values by tensor name.

    ``layers`` is how many the slice has. Tensors of one layer after the other are said as a list where that is enough,
    and else one by one, if the models' layers are ``numbered`` as in the names.

    Raises:
        Unsayable: they would have to be, but are not.
    """
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    cases = _by_module(values, layers)
    if not _means(cases, values, layers):
        if not numbered:
            raise Unsayable("its values follow no module through a slice, and mergekit's filters name modules only")
        rest, _ = Counter(values.values()).most_common(1)[0]
        names = sorted((name for name, value in values.items() if value != rest), key=lambda name: (-len(name), name))
        kept = [name for name, value in values.items() if value == rest and any(one in name for one in names)]
        cases = [*((name, values[name]) for name in sorted([*names, *kept], key=lambda name: (-len(name), name)))]
        cases.append((REST, rest))
    return [{**({} if text == REST else {"filter": text}), "value": _plain(value)} for text, value in cases]


def _by_module(values: Mapping[str, float], layers: int) -> Cases:
    """What all layers share is named by what follows the layer's number; the rest is what most modules have."""
    modules: dict[str, dict[int, float]] = {}
    outside: dict[str, float] = {}
    for name, value in values.items():
        layer = layer_of(name)
        if layer is None:
            outside[name] = value
        else:
            modules.setdefault(_behind(name), {})[layer] = value
    series = {module: tuple(of.get(layer, 0.0) for layer in range(layers)) for module, of in modules.items()}
    rest, _ = Counter(series.values()).most_common(1)[0] if series else (tuple(outside.values())[-1:], 0)
    cases: Cases = [(name, value) for name, value in outside.items() if value != rest[0]]
    cases += [(module, _short(one)) for module, one in series.items() if one != rest]
    return [*sorted(cases, key=lambda case: -len(case[0])), (REST, _short(rest))]


def _means(cases: Cases, values: Mapping[str, float], layers: int) -> bool:
    """Whether mergekit gives every tensor its value."""
    return all(first_fit(cases, where.out, where) == values[where.out] for where in _places(values, layers))


def _places(names: Mapping[str, float], layers: int) -> Iterator[Where]:
    for name in names:
        layer = layer_of(name)
        yield Where(name, {}) if layer is None else Where(name, {}, 0, layer, layers)


def _behind(name: str) -> str:
    """What follows the number of the layer, with its dot."""
    parts = name.split(".")
    at = next(at for at, part in enumerate(parts) if part.isdecimal())
    return ".".join(["", *parts[at + 1 :]])


def _short(series: tuple[float, ...]) -> Inner:
    return series[0] if len(set(series)) == 1 else series


def _plain(value: Inner) -> Any:
    return list(value) if isinstance(value, tuple) else value
