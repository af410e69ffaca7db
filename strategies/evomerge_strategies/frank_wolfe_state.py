"""The state of Frank-Wolfe merging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import StrategyError
from evomerge_strategies.frank_wolfe_race import Race
from evomerge_strategies.hall import Hall

Floats = NDArray[np.float64]
A = TypeVar("A", bound=np.generic)
T = TypeVar("T")

FAILED: Floats = np.zeros(0)
"""Stands for the losses of a candidate that could not be scored."""


@dataclass(frozen=True, eq=False)
class FrankWolfeState:
    """The weights where the search is, and how far it is there.

    Attributes:
        weights: float64 (rows, models), on the simplex.
        losses: of the items there.
        asked: candidates asked.
        told: candidates told.
        phase: what the present batch of candidates is for: to find out the loss at the ``start``, the slopes at the
            weights by a ``probe`` per model or by a ``look`` at the gradient, the best ``step``, or what an open-loop
            step leads to where none was better (``detour``).
        attempt: which start is tried.
        iteration: t, from 0.
        inner: step of a soft iteration, from 0.
        centre: number of the candidate with the weights; -1 before there is one.
        race: of the probes; ``None`` while there is none.
        slopes: at the weights, (rows, models), ``nan`` out of the race; ``None`` while they are not known.
        face: the models that a soft iteration moves among.
        ahead: slopes that came with the batch.
        gap: how steeply the loss falls along the direction.
        gap_error: its standard error.
        batch: losses of the items of each candidate of the batch, in the order asked; ``None`` is not yet told.
        hall: the best candidates on all items.
        over: why the search is over.
    """

    weights: Floats
    losses: Floats
    asked: int = 0
    told: int = 0
    phase: Literal["start", "probe", "look", "step", "detour"] = "start"
    attempt: int = 0
    iteration: int = 0
    inner: int = 0
    centre: int = -1
    race: Race | None = None
    slopes: Floats | None = None
    face: NDArray[np.bool_] | None = None
    ahead: Floats | None = None
    gap: float = 0.0
    gap_error: float = 0.0
    batch: tuple[Floats | None, ...] = ()
    hall: Hall = ()
    over: str | None = None


def frozen(array: NDArray[A]) -> NDArray[A]:
    """The array, which nobody may change from now on."""
    array.flags.writeable = False
    return array


def known(value: T | None) -> T:
    """What is there in the phases that use it."""
    if value is None:
        raise StrategyError("Frank-Wolfe lost its slopes or its race; this is a defect of the strategy")
    return value
