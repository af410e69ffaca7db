"""What a recipe file says of a parameter, and what that is for one tensor and one model.

One number; a list of numbers, spread evenly along the depth of the model and interpolated between; ``{model: value}``;
``groups: {group: value}``; or a list of cases, each with a ``value`` and what it holds for (``filter``, a pattern of
tensor names; ``layers``, a range such as ``0:8``; both; or nothing: everything), of which the first that fits counts.
Values nest: a case may hold a list along its layers for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain

from evomerge.config.values import unknown
from evomerge.config.yamlfile import Problems
from evomerge.merge.layout import Layout
from evomerge.merge.operators.port import Parameter

Layers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is wanted.

    Attributes:
        tensor: name of the tensor.
        group: the parameter group it belongs to.
        layer: the layer it belongs to, where it has one.
        layers: the layers that a list of numbers is spread over.
        source: the model that the value is for, where each has its own.
    """

    tensor: str
    group: str
    layer: int | None
    layers: Layers
    source: str | None = None


class Gap(Exception):
    """There is no value for a place: the line that should give it, and what to do."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as it was written. ``line`` is where it stands in the file."""

    path: str
    line: int

    def at(self, place: Place) -> float:
        """The value at a place.

        Raises:
            Gap: there is none.
        """
        raise NotImplementedError

    @property
    def inner(self) -> Collection[Setting]:
        """The values that it is made of."""
        return ()

    def check(self, layout: Layout, problems: Problems) -> None:
        """Note what does not fit the model: groups and layers that it has not."""
        for one in self.inner:
            one.check(layout, problems)

    def idle(self, layout: Layout) -> list[str]:
        """Patterns that fit no tensor, each with its place in the file."""
        return list(chain.from_iterable(one.idle(layout) for one in self.inner))


@dataclass(frozen=True, slots=True)
class Fixed(Setting):
    """The same everywhere."""

    value: float

    def at(self, place: Place) -> float:
        """That number."""
        return self.value


def interpolated(anchors: Sequence[float], layer: int, layers: int) -> float:
    """The value at the layer with that number (from 0) of so many, the anchors spread evenly over them."""
    if layers == 1 or len(anchors) == 1:
        return anchors[-1]
    below, rest = divmod(layer * (len(anchors) - 1), layers - 1)
    if not rest:
        return anchors[below]
    share = rest / (layers - 1)
    return (1.0 - share) * anchors[below] + share * anchors[below + 1]


@dataclass(frozen=True, slots=True)
class Gradient(Setting):
    """Linear interpolation between anchors at equal distances, the first at the first layer, the last at the last.

    As in mergekit tensors outside the layers (embeddings, final norm, head) have the first anchor's value, and a single
    layer has the last one's.
    """

    anchors: tuple[float, ...]

    def at(self, place: Place) -> float:
        """Exactly the anchor where a layer lies on one."""
        if place.layer is None:
            return self.anchors[0]
        return interpolated(self.anchors, place.layers.index(place.layer), len(place.layers))


@dataclass(frozen=True, slots=True)
class ByModel(Setting):
    """Each model its own."""

    of: Mapping[str, Setting]

    def at(self, place: Place) -> float:
        """The model's."""
        own = self.of.get(place.source or "")
        if own is None:
            raise Gap(self.line, f"{self.path} has no value for {place.source!r}; give one")
        return own.at(place)

    @property
    def inner(self) -> Collection[Setting]:
        """Of all models."""
        return self.of.values()


@dataclass(frozen=True, slots=True)
class ByGroup(Setting):
    """Each parameter group its own."""

    of: Mapping[str, Setting]
    lines: Mapping[str, int]

    def at(self, place: Place) -> float:
        """The group's."""
        if place.group not in self.of:
            raise Gap(self.line, f"{self.path} has no value for the group {place.group!r}; give one")
        return self.of[place.group].at(place)

    @property
    def inner(self) -> Collection[Setting]:
        """Of all groups."""
        return self.of.values()

    def check(self, layout: Layout, problems: Problems) -> None:
        """Every group must be one of the pool's."""
        known = [group.name for group in layout.groups]
        for group in self.of.keys() - set(known):
            unknown(problems, self.lines[group], group, known, self.path)
        Setting.check(self, layout, problems)


@dataclass(frozen=True, slots=True)
class Case:
    """A value and what it holds for; ``None`` is no restriction."""

    setting: Setting
    filter: str | None = None
    layers: Layers | None = None

    def fits(self, place: Place) -> bool:
        """Whether it holds at a place."""
        return (self.layers is None or place.layer in self.layers) and (
            self.filter is None or fnmatchcase(place.tensor, self.filter)
        )


@dataclass(frozen=True, slots=True)
class ByCase(Setting):
    """The first case that fits."""

    cases: tuple[Case, ...]

    def at(self, place: Place) -> float:
        """That case's, spread over its layers."""
        for case in self.cases:
            if case.fits(place):
                return case.setting.at(place if case.layers is None else replace(place, layers=case.layers))
        raise Gap(
            self.line,
            f"{self.path}: no case fits the tensor {place.tensor!r}; end the list with '- value: NUMBER' for the rest",
        )

    @property
    def inner(self) -> Collection[Setting]:
        """Of all cases."""
        return [case.setting for case in self.cases]

    def check(self, layout: Layout, problems: Problems) -> None:
        """Layers must be within the model."""
        for case in self.cases:
            if case.layers is not None and max(case.layers) >= layout.layers:
                text = f"layer {max(case.layers)} is meant, but the model has only {layout.layers} (0 is the first)"
                problems.add(case.setting.line, f"{self.path}: {text}")
        Setting.check(self, layout, problems)

    def idle(self, layout: Layout) -> list[str]:
        """Its own, and those of its cases."""
        mine = [
            f"line {case.setting.line}: {self.path}: the pattern {case.filter!r} fits no merged tensor"
            for case in self.cases
            if case.filter is not None and not any(fnmatchcase(slot.name, case.filter) for slot in layout.slots)
        ]
        return mine + Setting.idle(self, layout)


Filler = Callable[[Place], tuple[float, ...]]


def filler(parameters: Sequence[Parameter], settings: Mapping[str, Setting], sources: Sequence[str]) -> Filler:
    """A function that gives a segment's values at a place, as a recipe holds them: parameter by parameter."""
    wanted = [(settings[one.name], _named(one, sources)) for one in parameters]
    return partial(_fill, wanted)


def _named(parameter: Parameter, sources: Sequence[str]) -> list[str | None]:
    if parameter.per == "segment":
        return [None]
    return list(sources if parameter.per == "source" else sources[1:])


def _fill(wanted: Sequence[tuple[Setting, Sequence[str | None]]], place: Place) -> tuple[float, ...]:
    return tuple(setting.at(replace(place, source=name)) for setting, names in wanted for name in names)
