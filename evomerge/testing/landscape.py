"""Small landscapes for strategies: a plain function of the weights instead of a fitness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Score
from evomerge.parameter import Declaration, Parameter
from evomerge.space import OperatorSpace
from evomerge.strategy import Group, Objective, Problem, Strategy

Loss = Callable[[NDArray[np.float64]], float | tuple[float, ...] | None]

MIXED = OperatorSpace("operator", "mixed")
"""An operator with a number, one searched by factors and a whole one."""


def problem(members: int, seed: int = 1, objectives: int = 1) -> Problem:
    """A pool of so many members, one parameter group, losses to be made small."""
    names = ("loss", "other")[:objectives]
    return Problem(
        seed,
        tuple(f"m{i}" for i in range(members)),
        (Group("all", 10),),
        tuple(Objective(name, "minimize") for name in names),
        operators=(
            Declaration(
                "mixed",
                (
                    Parameter("weight", 0.0, 1.0, 0.5, per="source"),
                    Parameter("rate", 1e-4, 1.0, 0.1, kind="log"),
                    Parameter("count", 1.0, 9.0, 5.0, kind="integer"),
                ),
            ),
        ),
    )


def weights(candidate: Candidate) -> NDArray[np.float64]:
    """The candidate's values in the first group."""
    return np.array(candidate.recipe.segments[0].values)


def sphere(x: NDArray[np.float64]) -> float:
    """Its bottom lies at 0.3."""
    return float(((x - 0.3) ** 2).sum())


def search(strategy: Strategy[Any], loss: Loss, evaluations: int, room: int = 4) -> tuple[Any, list[Candidate]]:
    """Ask and tell; a loss of None is a failure."""
    state: Any = strategy.start()
    seen: list[Candidate] = []
    while state.told < evaluations and strategy.exhausted(state) is None:
        state, asked = strategy.ask(state, min(room, evaluations - state.told))
        assert asked, "nothing is out, so there must be something to ask"
        for candidate in asked:
            value = loss(weights(candidate))
            state = strategy.tell(state, _told(candidate, value))
        seen.extend(asked)
    return state, seen


def _told(candidate: Candidate, value: float | tuple[float, ...] | None) -> Evaluated:
    if value is None:
        return Evaluated(candidate, failure="broken")
    values = value if isinstance(value, tuple) else (value,)
    return Evaluated(candidate, Score(tuple(zip(("loss", "other"), values, strict=False))))
