"""The front of a study with several objectives, and the volume it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Recipe
from evomerge.pareto import front, hypervolume
from evomerge.store.port import StudyStore
from evomerge.strategy import Objective

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """Results on the search split that no other beats on every objective, best on the first objective first.

    Attributes:
        objectives: the study's, the main one first.
        numbers: candidate numbers.
        values: (n, objectives), as the fitness gave them.
        others: (m, objectives) values of all others that were scored.
        reference: (objectives,) the worst of the pool's members on each; of all candidates, where no member was scored.
        of_members: whether the reference is that of the members.
        volume: hypervolume between the reference and the front, a product of the objectives' units.
    """

    objectives: tuple[Objective, ...]
    numbers: tuple[int, ...]
    values: Floats
    others: Floats
    reference: Floats
    of_members: bool
    volume: float


def read_front(study: StudyStore, objectives: Sequence[Objective]) -> ParetoFront | None:
    """The front of what was scored on all items; None while there is nothing."""
    signs = np.array([one.gain(1.0) for one in objectives])
    numbers, rows, members = list[int](), list[list[float]](), list[bool]()
    for evaluated in study.scores("search", items=False):
        candidate, score = evaluated.candidate, evaluated.score
        if score is None or candidate.request.ranges is not None:
            continue
        numbers.append(candidate.number)
        rows.append([score[one.name] for one in objectives])
        members.append(_is_member(candidate.recipe))
    if not rows:
        return None
    gains = np.array(rows) * signs
    best = front(gains)
    best = best[np.argsort(-gains[best, 0], kind="stable")]
    of_members = any(members)
    reference = gains[np.array(members) if of_members else slice(None)].min(axis=0)
    rest = np.setdiff1d(np.arange(len(gains)), best)
    return ParetoFront(
        objectives=tuple(objectives),
        numbers=tuple(numbers[place] for place in best),
        values=gains[best] * signs,
        others=gains[rest] * signs,
        reference=reference * signs,
        of_members=of_members,
        volume=hypervolume(gains[best], reference),
    )


def _is_member(recipe: Recipe) -> bool:
    """Whether it gives a pool member itself."""
    alone = len(recipe.sources) == 1 and recipe.sources[0].startswith(MEMBER) and recipe.noise is None
    return alone and all(segment.values == (1.0,) for segment in recipe.segments)
