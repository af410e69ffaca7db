"""The family of one candidate: everyone it descends from, back to the pool, and how much each of them matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Candidate
from evomerge.errors import EvaluationError
from evomerge.store.port import StudyStore

STEP = 500  # candidates per question to the store


@dataclass(frozen=True)
class Relative:
    """A candidate of the family; ``value`` on the search split is ``None`` when it failed or is not back yet."""

    candidate: Candidate
    value: float | None

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the pool members it is directly built from."""
        sources = self.candidate.recipe.sources
        return tuple(source.removeprefix(MEMBER) for source in sources if source.startswith(MEMBER))


@dataclass(frozen=True)
class Family:
    """``relatives`` by number, the ``root`` first, then generation by generation back; ``objective`` names the values.

    ``beyond`` are parents that were not followed, because they are further back than was asked for.
    """

    root: int
    relatives: Mapping[int, Relative]
    objective: str
    direction: str
    beyond: frozenset[int] = frozenset()

    def parents(self, number: int) -> tuple[int, ...]:
        """Parents that are in the family, first parent first, each once."""
        parents = dict.fromkeys(self.relatives[number].candidate.parents)
        return tuple(parent for parent in parents if parent in self.relatives)

    def influence(self) -> dict[int, float]:
        """How much of the root came through each relative, if every parent gave an equal share; the root has 1."""
        share = dict.fromkeys(self.relatives, 0.0)
        share[self.root] = 1.0
        for number in sorted(self.relatives, reverse=True):  # children have larger numbers than their parents
            parents = self.parents(number)
            for parent in parents:
                share[parent] += share[number] / len(parents)
        return share


def trace(study: StudyStore, number: int, *, depth: int | None = None) -> Family:
    """The family of candidate ``number``, ``depth`` steps back (default: to the very beginning).

    One question to the store per step, so depth costs time, but no recursion.

    Raises:
        StoreError: there is no such candidate.
    """
    found: dict[int, Candidate] = {}
    level, step = [number], 0
    while level and (depth is None or step <= depth):
        found.update((candidate.number, candidate) for candidate in study.candidates(level))
        parents = dict.fromkeys(parent for known in level for parent in found[known].parents)
        level, step = [parent for parent in parents if parent not in found], step + 1
    values = _values(study, sorted(found))
    relatives = {key: Relative(candidate, values.get(key)) for key, candidate in found.items()}
    return Family(number, relatives, study.record.objective, study.record.direction, frozenset(level))


def _values(study: StudyStore, numbers: Sequence[int]) -> dict[int, float]:
    values: dict[int, float] = {}
    for begin in range(0, len(numbers), STEP):
        for evaluated in study.scores("search", numbers[begin : begin + STEP], items=False):
            if evaluated.score is not None:
                values[evaluated.candidate.number] = _value(evaluated.score.objectives, study.record.objective)
    return values


def _value(objectives: Sequence[tuple[str, float]], name: str) -> float:
    for known, value in objectives:
        if known == name:
            return value
    raise EvaluationError(f"a stored score lacks the study's objective {name!r}")


def contributions(
    table: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]], sources: Sequence[str]
) -> dict[str, float]:
    """How much of a model is from each pool member: its mean coefficient over all coordinates.

    Args:
        table: per parameter group the breakpoints (S + 1, from 0 to the group's size) and coefficients (S x K), as
            in a flattened recipe.
        sources: the K members, in the order of the columns.

    Returns:
        Members and their shares. For interpolations they sum to about 1; spherical and arithmetic merges may exceed it.
    """
    total = np.zeros(len(sources))
    size = 0
    for bounds, coefficients in table.values():
        total += np.diff(bounds) @ coefficients
        size += int(bounds[-1] - bounds[0])
    shares = total / max(size, 1)
    return {source.removeprefix(MEMBER): float(share) for source, share in zip(sources, shares, strict=True)}
