"""Drives strategies for several objectives on plain functions of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.strategy import Group, Objective, Problem, Strategy

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]


def problem(members: int, objectives: tuple[Objective, ...], seed: int = 0, base: str | None = "base") -> Problem:
    return Problem(
        seed=seed,
        members=tuple(f"m{i}" for i in range(members)),
        groups=(Group("all", 1),),
        objectives=objectives,
        base=base,
    )


def weights(candidate: Candidate, known: Problem) -> Floats:
    """Of one candidate by member, from the first group."""
    given = dict(zip(candidate.recipe.sources, candidate.recipe.segments[0].values, strict=False))
    if candidate.recipe.operator == "task_arithmetic":
        given = dict(zip(candidate.recipe.sources[1:], candidate.recipe.segments[0].values, strict=True))
    return np.array([given.get(f"pool:{member}", 0.0) for member in known.members])


def drive(
    strategy: Strategy[Any], known: Problem, function: Function, evaluations: int
) -> tuple[Any, list[Candidate], Floats]:
    """State, candidates and values after so many evaluations, or fewer when the strategy is exhausted."""
    state, candidates, values = strategy.start(), list[Candidate](), list[Floats]()
    while len(candidates) < evaluations:
        state, asked = strategy.ask(state, evaluations - len(candidates))
        if not asked:
            assert strategy.exhausted(state)
            break
        for candidate in asked:
            found = function(weights(candidate, known))
            objectives = tuple((one.name, float(v)) for one, v in zip(known.objectives, found, strict=True))
            state = strategy.tell(state, Evaluated(candidate, Score(objectives)))
            candidates.append(candidate)
            values.append(found)
    return state, candidates, np.array(values)
