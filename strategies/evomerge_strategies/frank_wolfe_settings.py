"""The settings of Frank-Wolfe merging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from evomerge.errors import StrategyError
from evomerge.space import OperatorSpace
from evomerge.strategy import Problem, require_members
from evomerge_strategies.frank_wolfe_steps import Direction


@dataclass(frozen=True)
class FrankWolfeSettings:
    """Frank-Wolfe's settings.

    Attributes:
        oracle: slopes from gradients (``slopes``, where the fitness has them) or from ``probes``; ``auto``: gradients
            where there are any and models are merged by weighted sums.
        signal: what probes and steps are judged by: the items' ``losses``, or their scores (``items``), with which the
            oracle chooses much worse.
        mode: ``hard`` steps towards one model (per group); ``soft`` searches the face of the ``vertices`` best models
            by projected gradients.
        direction: of hard steps: ``pairwise`` moves weight from the worst model to the best, ``away`` leaves the worst
            where that is steeper, ``frank_wolfe`` goes to the best and takes from all others.
        vertices: models that a soft iteration adds, at most.
        inner_steps: projected gradient steps of a soft iteration, at most.
        step: ``line_search`` tries 1, .5, .25, .1 and .03 of the longest step and accepts the best if the loss falls,
            and if it does not, makes an open-loop step; ``open_loop`` takes 2 / (t + 2) of it; ``fixed`` always
            ``step_size``.
        step_size: of the longest step, if ``fixed``.
        iterations: at most.
        per_group: weights for each parameter group (*layer-wise*); off: for the whole model (*task-wise*).
        epsilon: length of probes. With scores of items it should be larger, about 0.3.
        first_items: items of a race's first round.
        tolerance: stop at a gap of this size: how steeply the loss still falls along the direction.
        errors: stop at a gap of less than this many of its standard errors; also the width of the race's bounds.
        start: the ``base``, or the ``uniform`` mixture of all members; ``auto``: the best recipe of an earlier stage
            that is such a mixture, else the base, else uniform.
        merge: an operator that is given the weights, in place of a weighted sum; its other parameters are ``fixed``.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    oracle: Literal["auto", "slopes", "probes"] = "auto"
    signal: Literal["losses", "items"] = "losses"
    mode: Literal["hard", "soft"] = "hard"
    direction: Direction = "pairwise"
    vertices: Annotated[int, Gt(0)] = 3
    inner_steps: Annotated[int, Gt(0)] = 3
    step: Literal["line_search", "open_loop", "fixed"] = "line_search"
    step_size: Annotated[float, Gt(0), Le(1)] = 0.1
    iterations: Annotated[int, Gt(0)] = 10
    per_group: bool = False
    epsilon: Annotated[float, Gt(0), Le(1)] = 0.1
    first_items: Annotated[int, Gt(1)] = 16
    tolerance: Annotated[float, Ge(0)] = 0.0
    errors: Annotated[float, Ge(0)] = 2.0
    start: Literal["auto", "base", "uniform"] = "auto"
    merge: OperatorSpace | None = None
    hall_of_fame: Annotated[int, Gt(0)] = 10


def check(settings: FrankWolfeSettings, problem: Problem) -> None:
    """Refuse what this study cannot do.

    Raises:
        StrategyError: no members, no losses (or scores) of items, or no gradients where they are asked for.
    """
    require_members(problem, 1, "Frank-Wolfe")
    if settings.signal == "losses" and not (problem.losses and problem.items):
        raise StrategyError(
            "Frank-Wolfe needs losses of single items, and this fitness gives none; let it give losses, or set "
            "signal: items to go by their scores, which choose worse"
        )
    if settings.signal == "items" and not problem.items:
        raise StrategyError("Frank-Wolfe needs scores of single items, and this fitness gives none; take another one")
    if settings.oracle == "slopes" and not problem.slopes:
        raise StrategyError("oracle: slopes needs a fitness with gradients, and this one has none; set oracle: probes")
