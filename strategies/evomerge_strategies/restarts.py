"""How a search goes on when one run of it is over: IPOP (Auger & Hansen, CEC 2005) and BIPOP (Hansen, GECCO 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

AtStop = Literal["ipop", "bipop", "again", "finish", "go_on"]


@dataclass(frozen=True, slots=True)
class Run:
    """A run between two restarts.

    Attributes:
        popsize: candidates in a generation.
        sigma: its first step size, as a multiple of the search's.
        regime: BIPOP's; a search's ``first`` run is of neither.
        limit: it ends after so many evaluations at the latest.
    """

    popsize: int
    sigma: float = 1.0
    regime: Literal["first", "large", "small"] = "first"
    limit: float = math.inf


def following(rule: AtStop, spent: Sequence[tuple[Run, int]], random: np.random.Generator) -> Run:
    """The run after those that are over, each with the evaluations it spent.

    ``ipop`` doubles the population every time and ``again`` never. ``bipop`` has two regimes and goes on in the one
    that has spent less: large runs, the k-th of ``2^k lambda_0``; and small ones of
    ``floor(lambda_0 (lambda_large / 2 lambda_0)^(u^2))`` candidates, with steps ``10^(-2v)`` times as long and at most
    half the evaluations of the last large run, u and v uniform in [0, 1).
    """
    first = spent[0][0].popsize
    if rule == "again":
        return Run(first)
    large = [(run, evaluations) for run, evaluations in spent if run.regime == "large"]
    small = sum(evaluations for run, evaluations in spent if run.regime == "small")
    if rule == "ipop" or small >= sum(evaluations for _, evaluations in large):
        return Run(first * 2 ** (len(large) + 1), regime="large")
    last, evaluations = large[-1]
    u, v = random.random(2)
    popsize = math.floor(first * (last.popsize / (2 * first)) ** (u * u))
    return Run(popsize, 10.0 ** (-2.0 * v), "small", max(evaluations / 2, popsize))
