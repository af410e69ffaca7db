"""The parameter vector: which tensors are merged, in which order, in which groups."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice

from evomerge.errors import PoolError
from evomerge.merge.grouping import WHOLE, Importance, grouped
from evomerge.merge.kinds import layer_of
from evomerge.merge.tensorfile import Entry
from evomerge.settings import PoolSettings
from evomerge.strategy import Group

__all__ = ["WHOLE", "Layout", "Slot", "lay_out", "layer_of", "natural"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One merged tensor: coordinates ``offset : offset + size`` of its group."""

    name: str
    shape: tuple[int, ...]
    size: int
    group: str
    offset: int


@dataclass(frozen=True)
class Layout:
    """All merged tensors group by group, and the names of those that are copied.

    The flat vector is the groups one after the other; ``starts[group]`` is where each begins.
    """

    slots: tuple[Slot, ...]
    groups: tuple[Group, ...]
    starts: Mapping[str, int]
    copied: tuple[str, ...]
    exclude: tuple[str, ...] = ()

    def excludes(self, name: str) -> bool:
        """Whether a tensor is left out by its name, in whichever checkpoint it is."""
        return _matches(name, self.exclude)

    @property
    def size(self) -> int:
        """Length of the whole flat vector."""
        return sum(group.size for group in self.groups)

    @cached_property
    def layers(self) -> int:
        """How many layers the merged tensors belong to: one more than the largest number."""
        return 1 + max((layer for slot in self.slots if (layer := layer_of(slot.name)) is not None), default=-1)


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key under which ``layers.2`` comes before ``layers.10``."""
    parts = re.split(r"([0-9]+)", name)  # text, digits, text, ...
    digits = (part.lstrip("0") for part in parts[1::2])
    numbers = [(len(number), number) for number in digits]
    texts = [(0, text) for text in parts[::2]]
    return tuple(part for pair in zip(texts, [*numbers, (0, "")], strict=True) for part in pair), name


def lay_out(
    entries: Mapping[str, Entry], everywhere: Collection[str], settings: PoolSettings, importance: Importance
) -> Layout:
    """The layout of a checkpoint's tensors under the settings' ``order``, ``groups``, ``grouping`` and ``exclude``.

    ``everywhere`` are the names in all of the pool's checkpoints, any of which may be excluded.

    Raises:
        PoolError: a tensor in no group or in two, a pattern that matches nothing, or nothing left to merge.
    """
    if settings.groups and settings.grouping != "whole":
        raise PoolError(f"pool.groups and pool.grouping: {settings.grouping} both divide the tensors; keep one of them")
    excluded = {name for name in entries if _matches(name, settings.exclude)}
    merged = [name for name, entry in entries.items() if entry.floating and name not in excluded]
    if not merged:
        raise PoolError("no floating-point tensor is left to merge; check pool.exclude")
    for what, patterns, names in (
        ("pool.exclude", settings.exclude, everywhere),
        ("pool.order", settings.order, merged),
        *((f"pool.groups.{group}", patterns, merged) for group, patterns in settings.groups.items()),
    ):
        _require_use(what, patterns, names)
    ordered = sorted(merged, key=lambda name: _rank(name, settings.order))
    members = _matched(ordered, settings.groups) if settings.groups else grouped(ordered, settings.grouping, importance)
    copied = tuple(sorted(set(entries) - set(merged), key=natural))
    return Layout(*_placed(entries, members), copied, settings.exclude)


def _placed(
    entries: Mapping[str, Entry], members: Mapping[str, Sequence[str]]
) -> tuple[tuple[Slot, ...], tuple[Group, ...], dict[str, int]]:
    """The tensors of all groups one after the other, the groups, and where each begins."""
    slots: list[Slot] = []
    groups: list[Group] = []
    starts: dict[str, int] = {}
    start = 0
    for group, names in members.items():
        offset = 0
        for name in names:
            entry = entries[name]
            slots.append(Slot(name, entry.shape, entry.size, group, offset))
            offset += entry.size
        if not offset:
            raise PoolError(f"the group {group} holds no parameter; remove it, widen its patterns, or divide otherwise")
        groups.append(Group(group, offset))
        starts[group] = start
        start += offset
    return tuple(slots), tuple(groups), starts


def _matched(names: Iterable[str], groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {group: [] for group in groups}
    for name in names:
        homes = [group for group, patterns in groups.items() if _matches(name, patterns)]
        if not homes:
            raise PoolError(f"tensor {name!r} is in no group; add a pattern for it to pool.groups, or to pool.exclude")
        if len(homes) > 1:
            raise PoolError(f"tensor {name!r} is in the groups {' and '.join(homes)}; narrow their patterns")
        members[homes[0]].append(name)
    return members


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _rank(name: str, order: tuple[str, ...]) -> tuple[int, object]:
    """Position of the first pattern that fits, then natural order; what fits none comes last."""
    fits = (at for at, pattern in enumerate(order) if fnmatchcase(name, pattern))
    return next(fits, len(order)), natural(name)


def _require_use(what: str, patterns: Iterable[str], names: Collection[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = ", ".join(islice(names, 3))
            raise PoolError(f"{what}: the pattern {pattern!r} fits no tensor; the names look like {some}")
