"""Values of single tensors as few cases of a recipe file: layers as lists, modules that agree together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from evomerge.merge.layout import layer_of

Layers = tuple[int, ...]
Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Module:
    """Tensors that differ in their layer's number only: what is before and after it, and a value for each layer."""

    before: str
    after: str
    layers: Layers
    values: Values

    @property
    def said(self) -> list[float] | float:
        """Their values as a recipe file says them."""
        return self.values[0] if len(set(self.values)) == 1 else list(self.values)

    @property
    def example(self) -> str:
        """One of them."""
        return f"{self.before}{self.layers[0]}{self.after}"

    @property
    def filter(self) -> str:
        """A pattern that fits them."""
        return f"{literal(self.before)}*{literal(self.after)}"


def cases(values: Mapping[str, float]) -> Any:
    """A number, or cases that give exactly these values by tensor name."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    outside = {name: value for name, value in values.items() if layer_of(name) is None}
    modules = _modules(values)
    depth = tuple(range(1 + max((module.layers[-1] for module in modules), default=-1)))
    rest = _most(list(outside.values()))
    found: list[dict[str, Any]] = [
        {"filter": literal(name), "value": value} for name, value in outside.items() if value != rest
    ]
    common = _most([module.values for module in modules if module.layers == depth])
    odd = _named([module for module in modules if module.layers != depth or module.values != common], modules)
    for module in sorted(odd, key=lambda one: -len(one.filter)):  # the longer name first: it may contain the shorter
        within = {} if module.layers == depth else {"layers": _ranges(module.layers)}
        found.append({"filter": module.filter, **within, "value": module.said})
    if common is not None and set(common) != {rest}:
        said = common[0] if len(set(common)) == 1 else list(common)
        found.append({"layers": _ranges(depth), "value": said})
    if rest is not None:
        found.append({"value": rest})
    return found


def _named(odd: list[_Module], modules: Sequence[_Module]) -> list[_Module]:
    """The odd modules, and those that their filters would take as well."""
    found = list(odd)
    for one in found:  # grows while it is walked
        found += [module for module in modules if module not in found and fnmatchcase(module.example, one.filter)]
    return found


def _modules(values: Mapping[str, float]) -> list[_Module]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for name, value in values.items():
        layer = layer_of(name)
        if layer is not None:
            parts = name.split(".")
            at = next(at for at, part in enumerate(parts) if part.isdecimal())
            before, after = ".".join([*parts[:at], ""]), ".".join(["", *parts[at + 1 :]])
            found.setdefault((before, after if len(parts) > at + 1 else ""), {})[layer] = value
    return [
        _Module(before, after, tuple(sorted(layers)), tuple(layers[layer] for layer in sorted(layers)))
        for (before, after), layers in found.items()
    ]


def _most(values: Sequence[Any]) -> Any:
    """What is there most often, the first of equals; ``None`` of nothing."""
    return Counter(values).most_common(1)[0][0] if values else None


def _ranges(layers: Layers) -> str:
    """Layers as ``0:4,6:8``."""
    ends: list[list[int]] = []
    for layer in layers:
        if ends and ends[-1][1] == layer:
            ends[-1][1] += 1
        else:
            ends.append([layer, layer + 1])
    return ",".join(f"{start}:{stop}" for start, stop in ends)


def literal(text: str) -> str:
    """A pattern that fits just this text."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)
