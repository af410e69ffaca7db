"""MAP-Elites (Mouret, Clune; arXiv 1504.04909): the best model of every kind of behaviour.

A grid over behaviour, here scores on groups of items, holds the best model of each cell; parents are drawn from it and
the child takes its cell if that is empty or held by a worse one. Parents and children are made as M2N2's baseline does
(arXiv 2508.16204): two elites in proportion to quality, without replacement, and SLERP with a split point.

Where that baseline would stop with one elite, because the pool's members behave alike, the second parent is one of the
members, whether it holds a cell or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.strategy import Problem, Strategy, require_members
from evomerge_strategies.competition import pick
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.mating import Mating, Member, draws_from
from evomerge_strategies.seeds import given_seeds

Floats = NDArray[np.float64]
MOST_CELLS = 100_000


@dataclass(frozen=True)
class MAPElitesSettings:
    """MAP-Elites' settings; the defaults are the published baseline of M2N2.

    Attributes:
        descriptors: for each axis of the grid, which search items' mean score it is: places such as ``7``, ``0:700``
            or ``1::2`` (every second, from the second on). Axes should be different skills: models that are equally
            good at all of them share a cell, and only the best of them stays.
        bins: cells along each axis, evenly over scores from 0 to 1.
        split_point: evolve the boundary; off: one mixing ratio for the whole vector.
        mutation: standard deviation of the noise on every coordinate of a child; 0 is none.
        angle: SLERP's angle over the ``global`` vectors or ``per_segment``.
        hall_of_fame: how many of the best ever seen are remembered as finalists.
    """

    descriptors: tuple[tuple[str, ...], ...]
    bins: Annotated[int, Gt(1)] = 10
    split_point: bool = True
    mutation: Annotated[float, Ge(0)] = 0.0
    angle: Literal["global", "per_segment"] = "global"
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class MAPElitesState:
    """The grid, its last axis the fastest: who holds each cell, and how good they are (0 where nobody does).

    ``founders`` are the seeds that could be scored.
    """

    asked: int
    told: int
    members: tuple[Member | None, ...]
    quality: Floats
    founders: tuple[Member, ...] = ()
    hall: Hall = ()


class MAPElites(Strategy[MAPElitesState]):
    """See the module's docstring. A model's quality is its mean score over all items."""

    Settings = MAPElitesSettings
    State = MAPElitesState
    needs_whole = True

    def __init__(self, settings: MAPElitesSettings, problem: Problem) -> None:
        if problem.items == 0:
            raise StrategyError("map_elites needs a score for each item; this fitness returns none (see Score.items)")
        require_members(problem, 2, "map_elites")
        self._s, self._problem = settings, problem
        self._axes = tuple(_items(axis, problem.items) for axis in settings.descriptors)
        self._cells = settings.bins ** len(self._axes)
        if not self._axes or self._cells > MOST_CELLS:
            raise StrategyError(
                f"map_elites takes 1 to {MOST_CELLS} cells, not {self._cells}: set descriptors and bins"
            )
        self._seeds = given_seeds(problem)
        self._mating = Mating(problem, True, settings.split_point, settings.mutation, settings.angle)

    def start(self) -> MAPElitesState:
        """An empty grid."""
        return MAPElitesState(0, 0, (None,) * self._cells, np.zeros(self._cells))

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: MAPElitesState, room: int) -> tuple[MAPElitesState, tuple[Candidate, ...]]:
        """Seeds first; once all of them are back, children of the present elites."""
        if state.asked < len(self._seeds):
            asked = self._seeds[state.asked : state.asked + max(room, 0)]
            return replace(state, asked=state.asked + len(asked)), asked
        if room <= 0 or state.told < len(self._seeds) or self.exhausted(state):
            return state, ()
        numbers = range(state.asked, state.asked + room)
        return replace(state, asked=numbers.stop), tuple(self._child(state, number) for number in numbers)

    def _child(self, state: MAPElitesState, number: int) -> Candidate:
        draws = draws_from(self._problem.seed, number, self._problem.groups)
        one = _drawn(state.members, state.quality, draws.first)
        elites = [member if member != one else None for member in state.members]
        if any(elites):
            two = _drawn(elites, np.where([member is not None for member in elites], state.quality, 0.0), draws.second)
        else:
            others = [member for member in state.founders if member != one]
            two = _drawn(others, np.ones(len(others)), draws.second)
        return self._mating.child(number, one, two, draws, "crossover")

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: MAPElitesState, evaluated: Evaluated) -> MAPElitesState:
        """The newcomer takes its cell if that is empty or held by a worse one."""
        state = replace(state, told=state.told + 1)
        if evaluated.score is None:
            return state
        row, candidate = evaluated.score.items, evaluated.candidate
        if row is None or row.min() < 0:
            raise StrategyError(
                "map_elites needs a non-negative score for each item, and was told none or a negative one"
            )
        newcomer = Member(candidate.number, candidate.recipe.digest, candidate.generation)
        founders = (*state.founders, newcomer) if candidate.number < len(self._seeds) else state.founders
        hall = enter(state.hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
        state = replace(state, founders=founders, hall=hall)
        cell, mean = self.cell(row), float(row.mean(dtype=np.float64))
        if state.members[cell] is not None and mean <= state.quality[cell]:
            return state
        quality = state.quality.copy()
        quality[cell] = mean
        return replace(state, quality=quality, members=(*state.members[:cell], newcomer, *state.members[cell + 1 :]))

    def cell(self, row: NDArray[np.generic]) -> int:
        """The cell of a model with these item scores: floor(bins * score) on each axis, 1.0 in the last bin."""
        cell = 0
        for items in self._axes:
            # multiplied before it is divided, so that 3 of 10 right are in bin 3 and not just below
            place = int(self._s.bins * float(row[items].sum(dtype=np.float64)) / items.size)
            cell = cell * self._s.bins + min(place, self._s.bins - 1)
        return cell

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: MAPElitesState) -> tuple[int | None, ...]:
        """Candidate numbers by cell."""
        return tuple(member.number if member else None for member in state.members)

    def finalists(self, state: MAPElitesState) -> tuple[int, ...]:
        """The hall of fame, best first."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: MAPElitesState) -> str | None:
        """A child needs two parents."""
        alive, seeds = len(state.founders), len(self._seeds)
        if state.told >= seeds and alive < 2:
            return f"only {alive} of {seeds} starting models could be scored, map_elites needs 2"
        return None

    def diagnostics(self, state: MAPElitesState) -> dict[str, float]:
        """Occupied cells, the share of all cells that they are, and the sum of their quality (the QD score)."""
        occupied = sum(member is not None for member in state.members)
        return {
            "cells": float(occupied),
            "grid_coverage": occupied / self._cells,
            "qd_score": float(state.quality.sum()),
        }


def _drawn(members: Sequence[Member | None], quality: Floats, uniform: float) -> Member:
    """One of the members, in proportion to quality; whoever, where all have none."""
    there = np.array([member is not None for member in members], dtype=np.float64)
    return cast(Member, members[pick(quality if quality.any() else there, uniform)])


def _items(places: tuple[str, ...], items: int) -> NDArray[np.int64]:
    """Places of items, from text such as ``7``, ``0:700`` or ``1::2``.

    Raises:
        StrategyError: no such places.
    """
    chosen = np.zeros(items, dtype=bool)
    for text in places:
        parts = text.split(":")
        try:
            numbers = [int(part) if part else None for part in parts]
            if len(parts) == 1 and numbers[0] is not None:
                numbers = [numbers[0], numbers[0] + 1]
            found = np.arange(items)[slice(*numbers)]
        except (ValueError, TypeError) as error:
            raise StrategyError(f"descriptors: {text!r} is no place of items; write 7, 0:700 or 1::2") from error
        if not found.size:
            raise StrategyError(f"descriptors: {text!r} is none of the {items} search items")
        chosen[found] = True
    if not chosen.any():
        raise StrategyError("descriptors: an axis names no items; give it some, such as 0::2")
    return np.flatnonzero(chosen)
