"""The merges of a recipe file from those of mergekit's slices: one for all where they agree, else one for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from evomerge.recipes.mergekit import series
from evomerge.recipes.mergekit.config import Config
from evomerge.recipes.mergekit.methods import Merge
from evomerge.recipes.mergekit.models import Models
from evomerge.recipes.mergekit.places import places
from evomerge.recipes.mergekit.quantity import BySlice, Constant, InSlice, Notation, Quantity, Where

Section = dict[str, Any]

_ABSENT = Constant(0.0)


class Sections:
    """Turns the merge of each slice into sections of a recipe file."""

    def __init__(self, config: Config, merges: Sequence[Merge], models: Models) -> None:
        self._slices = config.slices
        self._merges = merges
        self._models = models

    def all(self) -> Iterator[tuple[str, Section]]:
        """Each section's name and content; ``merge`` is the whole.

        Raises:
            Unset: a parameter has no value for some tensor.
            PoolError: tensors must be named, but the models are not at hand.
        """
        merges = self._merges
        if all(_alike(one, merges[0]) for one in merges):
            yield "merge", self._section(_joined(merges))
        elif _additive(merges):
            yield "merge", self._section(_sum(merges))
        else:
            parts = [f"slice_{at}" for at in range(1, len(merges) + 1)]
            for at, (name, merge) in enumerate(zip(parts, merges, strict=True)):
                yield name, self._section(merge, at)
            weights = {name: self._said(InSlice(at)) for at, name in enumerate(parts)}
            yield "merge", {"operator": "linear", "sources": parts, "parameters": {"weight": weights}}

    def _section(self, merge: Merge, part: int | None = None) -> Section:
        names = self._models.names
        base = {} if merge.base in (None, self._models.base) else {"base": names[str(merge.base)]}
        section = {"operator": merge.operator, **base, "sources": [names[one] for one in merge.sources]}
        parameters = {
            name: self._said(value, part)
            if isinstance(value, Quantity)
            else _together({names[model]: self._said(one, part) for model, one in value.items()})
            for name, value in merge.parameters.items()
        }
        options = {"options": dict(merge.options)} if merge.options else {}
        return {**section, **options, **({"parameters": parameters} if parameters else {})}

    def _said(self, quantity: Quantity, part: int | None = None) -> Notation:
        """As the file had it, where that means the same in one model of all layers, and else tensor by tensor.

        ``part``: the only slice in which it matters.
        """
        found = quantity.notation()
        if isinstance(found, float) or (found is not None and self._whole and not (quantity.numbered and self._moved)):
            return found
        wanted = {name: where for name, where in self._places.items() if part in (None, where.part)}
        values = {name: quantity.at(where) for name, where in wanted.items()}
        any_value = next(iter(values.values()), 0.0)
        return series.cases({name: values.get(name, any_value) for name in self._places})

    @property
    def _whole(self) -> bool:
        """Whether there is but one slice, so that lists are spread over the whole model."""
        return len(self._slices) == 1

    @property
    def _moved(self) -> bool:
        """Whether layers have other numbers in a model than in the result."""
        return any(one.layers is not None and one.layers[0] > 0 for one in self._slices[0].inputs)

    @cached_property
    def _places(self) -> Mapping[str, Where]:
        return places(self._models.tensors(), self._slices)


def _alike(one: Merge, other: Merge) -> bool:
    """Whether they differ at most in their parameters' values."""
    return replace(one, parameters={}) == replace(other, parameters={})


def _joined(merges: Sequence[Merge]) -> Merge:
    """Alike merges as one, whose parameters differ from slice to slice."""
    if len(merges) == 1:
        return merges[0]
    found: dict[str, Any] = {}
    for name, value in merges[0].parameters.items():
        same: list[Any] = [one.parameters[name] for one in merges]
        found[name] = (
            BySlice(tuple(same))
            if isinstance(value, Quantity)
            else {model: BySlice(tuple(one[model] for one in same)) for model in value}
        )
    return replace(merges[0], parameters=found)


def _additive(merges: Sequence[Merge]) -> bool:
    """Whether a model that is missing in a slice may have the weight 0 there."""
    return {one.operator for one in merges} in ({"linear"}, {"passthrough"}) and all(
        one.options == merges[0].options for one in merges
    )


def _sum(merges: Sequence[Merge]) -> Merge:
    """Sums of different models as one sum of all."""
    terms = [_weights(one) for one in merges]
    models = tuple(dict.fromkeys(model for one in terms for model in one))
    weights = {model: BySlice(tuple(one.get(model, _ABSENT) for one in terms)) for model in models}
    return Merge("linear", models, None, merges[0].options, {"weight": weights})


def _weights(merge: Merge) -> Mapping[str, Quantity]:
    value = merge.parameters["scale" if merge.operator == "passthrough" else "weight"]
    return {merge.sources[0]: value} if isinstance(value, Quantity) else value


def _together(said: dict[str, Notation]) -> Notation:
    """One value where all models have the same."""
    first = next(iter(said.values()))
    return first if all(one == first for one in said.values()) else said
