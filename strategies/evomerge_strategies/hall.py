"""The hall of fame: the best candidates ever told, kept beside populations that may lose them."""

from __future__ import annotations

from evomerge.candidate import Evaluated
from evomerge.strategy import Objective

Hall = tuple[tuple[float, int], ...]
"""(value, candidate number), best first; the earlier of equals first."""


def enter(hall: Hall, evaluated: Evaluated, objective: Objective, size: int) -> Hall:
    """The hall with this result in it, if it was scored and belongs among the best ``size``."""
    if evaluated.score is None:
        return hall
    value = evaluated.score[objective.name]
    if len(hall) == size and objective.gain(value) <= objective.gain(hall[-1][0]):
        return hall
    entries = (*hall, (value, evaluated.candidate.number))
    return tuple(sorted(entries, key=lambda entry: (-objective.gain(entry[0]), entry[1]))[:size])


def insert(hall: Hall, loss: float, number: int, size: int) -> Hall:
    """A hall of losses, smallest first, with this one in it if it belongs among the best ``size``."""
    if len(hall) == size and loss >= hall[-1][0]:
        return hall
    return tuple(sorted((*hall, (loss, number)))[:size])
