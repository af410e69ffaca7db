"""The stages of Evo-Merging: what each searches, in which of the space's numbers, and from where."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import StrategyError, nearest
from evomerge.space import OperatorSpace
from evomerge.strategy import Problem
from evomerge_strategies.cma_es import SEPARABLE_FROM
from evomerge_strategies.evo_settings import EvoMergingSettings, plan_of
from evomerge_strategies.pycma import Floats, Search


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage searches, where in the space's vectors, how it is drawn to zero, and for how many generations.

    ``held`` is what these numbers are while the other stage searches, before this one has found better; ``owners`` are
    the places of the members that they belong to, -1 for none; ``adopts``: it may begin at the best member.
    """

    name: str
    search: Search
    at: NDArray[np.int64]
    held: Floats
    owners: NDArray[np.int64]
    adopts: bool
    penalty: float
    generations: int


def parted(settings: EvoMergingSettings, space: OperatorSpace, problem: Problem) -> tuple[list[int], list[int]]:
    """Which dimensions are alphas, and which are betas.

    Raises:
        StrategyError: the operator lacks one of the two, one is not searched, or something else is.
    """
    declared = [parameter.name for parameter in problem.operator(space.operator).parameters]
    for key, name in (("alpha", settings.alpha), ("beta", settings.beta)):
        if name not in declared:
            raise StrategyError(
                f"strategy.{key} is {name!r}, but the operator {space.operator!r} has "
                f"{', '.join(declared) or 'no parameter'}; {nearest(name, declared)}name one of them"
            )
    found: dict[str, list[int]] = {settings.alpha: [], settings.beta: []}
    for at, dimension in enumerate(space.dimensions(problem)):
        name = dimension.name.partition(".")[0]
        if name not in found:
            raise StrategyError(
                f"Evo-Merging searches {settings.alpha} and {settings.beta}, but the space also searches {name!r}; "
                "give it a value in strategy.space.fixed"
            )
        if dimension.kind != "float":
            raise StrategyError(f"Evo-Merging steps evenly, but {name!r} is of kind {dimension.kind}; name another one")
        found[name].append(at)
    alphas, betas = found[settings.alpha], found[settings.beta]
    if settings.alpha == settings.beta or len(alphas) < 2 or len(betas) < 2:
        raise StrategyError(
            f"Evo-Merging needs at least 2 numbers of strategy.alpha ({settings.alpha!r}: {len(alphas)}) and of "
            f"strategy.beta ({settings.beta!r}: {len(betas)}) in the operator {space.operator!r}; name its parameters, "
            "one for the share of entries to keep and one that scales"
        )
    return alphas, betas


def stage_of(
    settings: EvoMergingSettings,
    name: Literal["denoise", "scale"],
    space: OperatorSpace,
    at: list[int],
    problem: Problem,
) -> Stage:
    """A stage over some of the space's dimensions.

    Raises:
        StrategyError: fewer evaluations than a generation, or a start out of bounds.
    """
    given = asdict(settings.denoise if name == "denoise" else settings.scale)
    plan = replace(
        plan_of(settings.preset, name, len(problem.members)), **{k: v for k, v in given.items() if v is not None}
    )
    skipped = name == "denoise" and plan.evaluations == 0
    popsize = settings.popsize or (4 + math.floor(3 * math.log(len(at))) if settings.preset == "lorahub" else 20)
    if plan.evaluations < popsize and not skipped:
        raise StrategyError(
            f"strategy.{name}.evaluations = {plan.evaluations} is less than a generation of {popsize}; raise it"
        )
    held = 1.0 if name == "denoise" else 1.0 / len(problem.members)
    dimensions = [space.dimensions(problem)[position] for position in at]
    for start, one in itertools.product((held,) if skipped else (held, plan.start), dimensions):
        if not one.low <= start <= one.high:
            raise StrategyError(f"strategy.{name} starts at {start:g}, outside the bounds of {one.name}; correct them")
    low, high = space.box(problem)
    search = Search(
        seed=problem.seed,
        name=f"evo:{name}",
        start=np.array([one.inner(plan.start) for one in dimensions]),
        low=low[at],
        high=high[at],
        sigma=plan.sigma,
        popsize=popsize,
        diagonal=settings.preset == "improved" and len(at) >= SEPARABLE_FROM,
    )
    return Stage(
        name=name,
        search=search,
        at=np.array(at),
        held=np.array([one.inner(held) for one in dimensions]),
        owners=np.array([_owner(one.name, problem) for one in dimensions]),
        adopts=settings.preset == "improved" and given["start"] is None,
        penalty=plan.penalty,
        generations=-(-plan.evaluations // popsize),
    )


def _owner(name: str, problem: Problem) -> int:
    """The place of the member that a dimension belongs to; -1 for none."""
    return next((at for at, member in enumerate(problem.members) if name.endswith(f".{member}")), -1)
