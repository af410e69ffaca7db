"""What a resolved recipe does, in words and tables: for the command line and for the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.candidate import ANCESTOR, MEMBER, Recipe
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import ModelPool
from evomerge.recipes.resolve import Resolved

_SHOWN = 6
"""So many values of a series are written out."""


@dataclass(frozen=True, slots=True)
class Line:
    """One parameter of one recipe: for which model (or all), where, and its value along the layers there."""

    parameter: str
    model: str
    where: str
    value: str


def name_of(source: str, names: Mapping[str, str]) -> str:
    """What people call a recipe's source."""
    if source.startswith(ANCESTOR):
        digest = source.removeprefix(ANCESTOR)
        return names.get(digest, f"recipe {digest[:8]}")
    return source.removeprefix(MEMBER)


def headline(recipe: Recipe, names: Mapping[str, str]) -> str:
    """The operator with its options, and its sources: ``slerp(angle=per_tensor) of math, code``."""
    options = ", ".join(f"{key}={_word(value)}" for key, value in recipe.options)
    merge = f"{recipe.operator}({options})" if options else recipe.operator
    sources = [name_of(source, names) for source in recipe.sources]
    if operator(recipe.operator, recipe.options).based:
        return f"{merge} of {', '.join(sources[1:])} over {sources[0]}"
    return f"{merge} of {', '.join(sources)}"


def _word(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def lines(recipe: Recipe, resolved: Resolved, pool: ModelPool) -> list[Line]:
    """Every parameter's value. Tensors that differ in their layer's number only, or in nothing, share a line."""
    kind = operator(recipe.operator, recipe.options)
    sources = [name_of(source, resolved.names) for source in recipe.sources]
    by_tensor = _by_tensor(recipe, pool)
    found = []
    at = 0
    for parameter in kind.parameters:
        for model in {"segment": ["all"], "source": sources, "expert": sources[1:]}[parameter.per]:
            if by_tensor is None:
                found.append(Line(parameter.name, model, *_span([one.values[at] for one in recipe.segments])))
            else:
                series = _series({name: values[at] for name, values in by_tensor.items()})
                found += [Line(parameter.name, model, where, value) for where, value in series]
            at += 1
    return found


def _by_tensor(recipe: Recipe, pool: ModelPool) -> dict[str, tuple[float, ...]] | None:
    """The values of each merged tensor; ``None`` if they change within one."""
    found: dict[str, tuple[float, ...]] = {}
    for group, slots in pool.slots.items():
        segments = [one for one in recipe.segments if one.group == group and one.stop > one.start]
        ends = {slot.offset + slot.size for slot in slots}
        if not all(one.stop in ends for one in segments):
            return None
        waiting = iter(segments)
        segment = next(waiting)
        for slot in slots:
            while segment.stop <= slot.offset and segment is not segments[-1]:
                segment = next(waiting)
            found[slot.name] = segment.values
    return found


def _span(values: Sequence[float]) -> tuple[str, str]:
    """Where and what, for values that change within tensors."""
    return f"over {len(values)} stretches", f"{min(values):g} to {max(values):g}"


def _series(values: Mapping[str, float]) -> list[tuple[str, str]]:
    """Where a parameter has which values: modules over all layers, joined where their series are equal."""
    if len(set(values.values())) == 1:
        return [("everywhere", f"{next(iter(values.values())):g}")]
    modules: dict[str, list[float]] = {}
    for name, value in values.items():
        modules.setdefault(_without_layer(name), []).append(value)
    joined: dict[str, list[str]] = {}
    for module, series in modules.items():
        joined.setdefault(_text(series), []).append(module)
    return [(_listed(names), text) for text, names in joined.items()]


def _listed(names: Sequence[str]) -> str:
    """Names, all or the first few."""
    if len(names) <= 2 * _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _without_layer(name: str) -> str:
    """The name with a star for its layer's number."""
    parts = name.split(".")
    first = next((at for at, part in enumerate(parts) if part.isdecimal()), len(parts))
    return ".".join("*" if at == first else part for at, part in enumerate(parts))


def _text(series: Sequence[float]) -> str:
    if len(set(series)) == 1:
        return f"{series[0]:g}"
    if len(series) <= _SHOWN:
        return ", ".join(f"{value:g}" for value in series)
    half = _SHOWN // 2
    return f"{', '.join(f'{value:g}' for value in series[:half])}, ..., {', '.join(f'{v:g}' for v in series[-half:])}"
