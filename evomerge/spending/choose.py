"""Which policies a study's settings ask for."""

from __future__ import annotations

from typing import Any

from evomerge.errors import StrategyError
from evomerge.settings import EvaluationSettings
from evomerge.spending.halving import Halving
from evomerge.spending.race import Race
from evomerge.spending.replicates import Replicates
from evomerge.strategy import Problem, Strategy


def wrapped(strategy: Strategy[Any], settings: EvaluationSettings, problem: Problem) -> Strategy[Any]:
    """The strategy within the policies that the settings name; itself where they name none.

    Raises:
        StrategyError: a policy cannot work with this strategy or this fitness.
    """
    _check_stop(strategy, settings, problem)
    _check_repeats(settings, problem)
    if settings.stop == "race":
        strategy = Race(settings, strategy, problem)
    elif settings.stop == "halving":
        strategy = Halving(settings, strategy, problem)
    if settings.replicates > 1 or settings.reevaluate:
        strategy = Replicates(settings, strategy, problem)
    return strategy


def _check_stop(strategy: Strategy[Any], settings: EvaluationSettings, problem: Problem) -> None:
    if settings.estimator == "irt" and settings.stop != "race":
        raise StrategyError("evaluation.estimator irt estimates what a race has dropped; set evaluation.stop: race")
    if settings.stop == "never":
        return
    why = f"evaluation.stop: {settings.stop}"
    if not problem.parts or not problem.items:
        raise StrategyError(f"{why} needs a fitness that scores some of its items (Fitness.parts); use stop: never")
    if strategy.needs_whole:
        raise StrategyError(f"{why} gives estimates, but this strategy needs every score whole; use stop: never")
    if settings.first >= problem.items:
        begins = f"evaluation.first is {settings.first}, and there are {problem.items} search items"
        raise StrategyError(f"{begins}, so that no candidate could be stopped early; make first smaller")


def _check_repeats(settings: EvaluationSettings, problem: Problem) -> None:
    if settings.replicates == 1 and not settings.reevaluate:
        return
    what = "evaluation.replicates" if settings.replicates > 1 else "evaluation.reevaluate"
    if not problem.noisy:
        raise StrategyError(
            f"{what} repeats evaluations, but this fitness gives the same score each time; leave it out"
        )
    if not problem.parts:
        raise StrategyError(f"{what} needs a fitness whose score_part tells replicates apart (Fitness.parts)")
    if settings.reevaluate and settings.stop != "never":
        raise StrategyError("evaluation.reevaluate needs leaders scored at once; use replicates, or stop: never")
