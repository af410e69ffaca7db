"""Where the candidates of a family tree stand: rows by generation, few crossings, and only so many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evomerge.lineage.family import Family

SWEEPS = 12  # passes of the crossing heuristic; more change little
STAGGER = 0.045  # rows lean left and right in turn, so that lines past a row do not run through its dots
LINKS = 3  # lines drawn up from one candidate at most, when its parents are not drawn themselves


@dataclass(frozen=True)
class Drawing:
    """``rows`` of numbers from the oldest generation down, their places in x, and lines (child, ancestor, direct)."""

    rows: tuple[tuple[int, ...], ...]
    generations: tuple[int, ...]
    x: Mapping[int, float]
    lines: tuple[tuple[int, int, bool], ...]
    left_out: int


def arrange(family: Family, most: int) -> Drawing:
    """The whole family, or the root and its ``most - 1`` most influential ancestors."""
    influence = family.influence()
    ranked = sorted(family.relatives, key=lambda number: (-influence[number], number))
    kept = set(ranked[:most]) | {family.root}
    lines = tuple(_lines(family, kept))
    generations = sorted({family.relatives[number].candidate.generation for number in kept})
    rows = [[n for n in sorted(kept) if family.relatives[n].candidate.generation == g] for g in generations]
    near: dict[int, list[int]] = {number: [] for number in kept}
    for child, ancestor, _ in lines:
        near[child].append(ancestor)
        near[ancestor].append(child)
    x = _places(rows, near)
    return Drawing(tuple(map(tuple, rows)), tuple(generations), x, lines, len(family.relatives) - len(kept))


def _lines(family: Family, kept: set[int]) -> list[tuple[int, int, bool]]:
    """Lines to parents, and past those that are not drawn to the ancestors from whom most came."""
    up: dict[int, dict[int, float]] = {}  # for those not drawn: share of each drawn ancestor
    lines = []
    for number in sorted(family.relatives):  # parents have smaller numbers
        parents = family.parents(number)
        shares: dict[int, float] = {}
        for parent in parents:
            for ancestor, share in {parent: 1.0}.items() if parent in kept else up[parent].items():
                shares[ancestor] = shares.get(ancestor, 0.0) + share / len(parents)
        largest = dict(sorted(shares.items(), key=lambda pair: -pair[1])[:LINKS])
        if number in kept:
            direct = [parent for parent in parents if parent in kept]
            lines += [(number, parent, True) for parent in direct]
            lines += [(number, ancestor, False) for ancestor in largest if ancestor not in direct]
        else:
            up[number] = largest
    return lines


def _places(rows: list[list[int]], near: Mapping[int, list[int]]) -> dict[int, float]:
    """Barycentre heuristic: order each row by the mean place of its relatives, down and up in turn."""
    x = {number: place for row in rows for number, place in zip(row, _spread(len(row)), strict=True)}
    eldest = min(rows[0]), max(rows[0])
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = {n: float(np.mean([x[m] for m in near[n]])) if near[n] else x[n] for n in row}
            row.sort(key=lambda number: (wish[number], number))
            x.update(zip(row, _spread(len(row)), strict=True))
    mirror = -1.0 if x[eldest[0]] > x[eldest[1]] else 1.0  # the pool's order from left to right
    x.update(zip(rows[0], _spread(len(rows[0]), 0.3), strict=True))  # room for the pool's names
    for place, row in enumerate(rows):
        stagger = 0.0 if place in (0, len(rows) - 1) else STAGGER * (-1) ** place
        x.update({number: 0.5 + mirror * (x[number] - 0.5) + stagger for number in row})
    return x


def _spread(count: int, gap: float = 0.16) -> list[float]:
    """Even places in 0..1, closer to the middle when there are few."""
    width = min(1.0, gap * (count - 1))
    return [0.5 + width * (place / (count - 1) - 0.5) if count > 1 else 0.5 for place in range(count)]
