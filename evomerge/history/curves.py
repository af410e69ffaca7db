"""Curves of a stored study, read from its journal in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Array, Evaluated
from evomerge.history.archive import Archive, Diversity
from evomerge.history.rounds import Values
from evomerge.store.port import Change, StudyStore

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS = 1000  # moments at which the archive is looked at


@dataclass(frozen=True, eq=False)
class History:
    """Results on the search split in the order told, and the population at some moments among them.

    ``values`` and ``best`` have one number per told result (``values`` is NaN where it failed, and in all rounds of a
    candidate but the last; ``best`` before the first success). ``at`` counts the results told at each moment;
    ``coverage``, ``entropy`` (bits), ``niche_min``, ``niche_max`` (share of all items) and ``filled`` (slots) have one
    number per moment; all are empty when the study has no population or no scores of all items at once.
    """

    name: str
    objective: str
    direction: str
    values: Floats
    best: Floats
    at: Ints
    coverage: Floats
    entropy: Floats
    niche_min: Floats
    niche_max: Floats
    filled: Ints


def read_history(study: StudyStore, *, points: int = POINTS) -> History:
    """The curves of a study, with at most about ``points`` moments of the population.

    Memory is that of the population, not of the journal.
    """
    record, told = study.record, study.summary().told
    every = max(1, told // points)
    archive, values, read = Archive(), list[float](), Values(record)
    moments: list[tuple[int, Diversity]] = []
    for turn in study.turns():
        values.extend(read.of(evaluated) for evaluated in turn.told)
        _follow(archive, turn.changes, turn.told, study)
        if turn.told and (len(values) % every == 0 or len(values) == told):
            diversity = archive.diversity()
            if diversity is not None:
                moments.append((len(values), diversity))
    return _history(study, values, moments)


def _history(study: StudyStore, values: Sequence[float], moments: Sequence[tuple[int, Diversity]]) -> History:
    record = study.record
    array = np.array(values, dtype=np.float64)
    better = np.fmax if record.direction == "maximize" else np.fmin
    return History(
        name=record.name,
        objective=record.objective,
        direction=record.direction,
        values=array,
        best=better.accumulate(array),
        at=np.array([at for at, _ in moments], dtype=np.int64),
        coverage=np.array([d.coverage for _, d in moments]),
        entropy=np.array([d.entropy for _, d in moments]),
        niche_min=np.array([d.niche_min for _, d in moments]),
        niche_max=np.array([d.niche_max for _, d in moments]),
        filled=np.array([d.filled for _, d in moments], dtype=np.int64),
    )


def _follow(archive: Archive, changes: Iterable[Change], told: Iterable[Evaluated], study: StudyStore) -> None:
    """Apply population changes; who enters was most often told in the same turn."""
    at_hand = {evaluated.candidate.number: _items(evaluated) for evaluated in told}
    for change in changes:
        number = change.number
        if number is not None and number not in at_hand:
            at_hand[number] = next((_items(evaluated) for evaluated in study.scores("search", [number])), None)
        archive.put(change.slot, None if number is None else at_hand[number])


def _items(evaluated: Evaluated) -> Array | None:
    """The row of all items, if the candidate was scored on them at once."""
    whole = evaluated.candidate.request.ranges is None
    return evaluated.score.items if evaluated.score is not None and whole else None
