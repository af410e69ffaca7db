"""Evo-Merging (arXiv 2509.12951) and LoraHub (arXiv 2307.13269): CMA-ES over a pool of adapters, through losses alone.

Two stages. *Denoise*: which share ``alpha_i`` of expert i's entries is kept, every expert scaled by ``beta = 1/N``.
*Scale*: signed ``beta_i``, with ``alpha`` held at the first stage's best. Each minimises the main objective plus a
penalty times the mean of ``|alpha|`` or ``|beta|``. LoraHub is the second stage alone, with every entry kept.

Three presets. ``improved`` begins inside the box, because a search that begins at ``alpha = 1`` with steps of 0.05, as
published, hardly moves within 400 evaluations of a hundred experts; it learns variances only from 50 numbers on;
finalists are compared by the objective itself, since penalties of the two stages differ; and its operator puts the
signs of ``beta`` on one side, where a negative weight subtracts. ``faithful`` is the published search, ``lorahub`` is
LoraHub's objective, box, start and budget. All three use pycma's CMA-ES, where LoraHub's own code calls NGOpt of
nevergrad, which at its budget is Cobyla.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.errors import StrategyError, nearest
from evomerge.space import OperatorSpace
from evomerge.strategy import Problem, require_members
from evomerge_strategies.cma_es import SEPARABLE_FROM
from evomerge_strategies.generations import Generational, GenerationsState, Searcher
from evomerge_strategies.pycma import Engine, Floats, Search
from evomerge_strategies.seeds import pool_seeds

FUSION = "factor_fusion"

Preset = Literal["improved", "faithful", "lorahub"]


@dataclass(frozen=True)
class StageSettings:
    """A stage. What is not given is as the preset says.

    Attributes:
        start: first mean, the same for every number; for the scales ``1/N`` where the preset is not LoraHub's.
        sigma: first step size.
        penalty: times the mean of absolute values is added to what is minimised.
        evaluations: how many, rounded up to whole generations; 0 leaves the first stage out, with ``alpha = 1``.
    """

    start: float | None = None
    sigma: Annotated[float, Gt(0)] | None = None
    penalty: Annotated[float, Ge(0)] | None = None
    evaluations: Annotated[int, Ge(0)] | None = None


def _whole_model() -> OperatorSpace:
    return OperatorSpace("operator", FUSION, whole=("alpha", "beta"))


@dataclass(frozen=True)
class EvoMergingSettings:
    """Evo-Merging's settings.

    Attributes:
        preset: ``improved``, ``faithful`` or ``lorahub``; see above.
        space: the operator and the bounds of its parameters; default: ``factor_fusion``, with one alpha and one beta
            per adapter for the whole model. The preset chooses its ``mode`` where the options do not: ``concat``, or
            ``ab_separate`` as published. For whole checkpoints, ``breadcrumbs`` with gamma and lambda fixed will do.
        alpha: the operator's parameter that is a share of entries to keep.
        beta: the operator's parameter that scales.
        denoise: the first stage.
        scale: the second stage.
        popsize: candidates in a generation; default: 20, or 4 + floor(3 ln N) for LoraHub.
        finalists_by: compare them by the ``objective`` alone, or by what was minimised (``penalised``), as published;
            default: as the preset says.
        score_members: score the pool's members first; default: only with the improved preset.
        hall_of_fame: how many of the best are remembered as finalists.
    """

    preset: Preset = "improved"
    space: OperatorSpace = field(default_factory=_whole_model)
    alpha: str = "alpha"
    beta: str = "beta"
    denoise: StageSettings = field(default_factory=StageSettings)
    scale: StageSettings = field(default_factory=StageSettings)
    popsize: Annotated[int, Gt(2)] | None = None
    finalists_by: Literal["objective", "penalised"] | None = None
    score_members: bool | None = None
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True, slots=True)
class _Plan:
    """A stage's settings, all of them given."""

    start: float
    sigma: float
    penalty: float
    evaluations: int


def _plan(preset: Preset, stage: Literal["denoise", "scale"], members: int) -> _Plan:
    """What the preset says."""
    if stage == "denoise":
        return {
            "improved": _Plan(0.5, 0.2, 0.05, 400),
            "faithful": _Plan(1.0, 0.05, 0.05, 400),
            "lorahub": _Plan(1.0, 0.05, 0.05, 0),
        }[preset]
    return {
        "improved": _Plan(1.0 / members, 0.3, 0.05, 800),
        "faithful": _Plan(1.0 / members, 0.05, 0.05, 800),
        "lorahub": _Plan(0.0, 0.2, 0.05, 40),
    }[preset]


_MODES: dict[Preset, str] = {"improved": "concat", "faithful": "ab_separate", "lorahub": "ab_separate"}


@dataclass(frozen=True, eq=False)
class _Stage:
    """What a stage searches, where in the space's vectors, how it is drawn to zero, and for how many generations.

    ``held`` is what these numbers are while the other stage searches, before this one has found better.
    """

    name: str
    search: Search
    at: NDArray[np.int64]
    held: Floats
    penalty: float
    generations: int


class EvoMerging(Generational):
    """See the module's docstring."""

    Settings = EvoMergingSettings
    State = GenerationsState

    def __init__(self, settings: EvoMergingSettings, problem: Problem) -> None:
        require_members(problem, 2, "Evo-Merging")
        improved = settings.preset == "improved"
        members = improved if settings.score_members is None else settings.score_members
        super().__init__(problem, pool_seeds(problem) if members else (), settings.hall_of_fame)
        self._space = _space(settings, problem)
        alphas, betas = _parted(settings, self._space, problem)
        self._denoise = _stage(settings, "denoise", self._space, alphas, problem)
        self._scale = _stage(settings, "scale", self._space, betas, problem)
        by = settings.finalists_by or ("objective" if improved else "penalised")
        self._penalised = by == "penalised"

    def searcher(self) -> Searcher:
        """The first stage, at its start."""
        return _Stages(self._problem, self._space, self._denoise, self._scale, self._penalised)


class _Stages(Searcher):
    """One stage's engine after the other's; the best of the first is held fixed in the second."""

    def __init__(self, problem: Problem, space: OperatorSpace, denoise: _Stage, scale: _Stage, penalised: bool) -> None:
        self._problem, self._space, self._penalised = problem, space, penalised
        self._denoise, self._scale = denoise, scale
        self._best, self._alpha = math.inf, denoise.held
        self._begin(denoise if denoise.generations else scale)

    def _begin(self, stage: _Stage) -> None:
        self._stage, self._left = stage, stage.generations
        self.origin = stage.name
        self._engine = Engine(stage.search)

    @property
    def size(self) -> int:
        return len(self._engine.proposals) if self._left else 0

    @property
    def finished(self) -> str | None:
        return None if self._left else "both stages have spent their evaluations; raise strategy.scale.evaluations"

    def recipe(self, at: int) -> Recipe:
        proposal = self._engine.proposals[at]
        x = np.empty(len(self._denoise.at) + len(self._scale.at))
        x[self._denoise.at] = self._alpha
        x[self._scale.at] = self._scale.held
        x[self._stage.at] = proposal
        return self._space.decode(self._problem, x)

    def value(self, at: int, loss: float) -> float:
        return self._drawn(at, loss) if self._penalised else loss

    def tell(self, losses: Floats) -> None:
        """Whole generations; after the last of the first stage the second begins."""
        minimised = np.array([self._drawn(at, loss) for at, loss in enumerate(losses.tolist())])
        first = int(minimised.argmin())
        if self._stage is self._denoise and minimised[first] < self._best:
            self._best, self._alpha = float(minimised[first]), self._engine.proposals[first]
        self._left -= 1
        if self._left:
            self._engine.tell(minimised)
        elif self._stage is self._denoise:
            self._begin(self._scale)

    def diagnostics(self) -> dict[str, float]:
        stage = 1.0 if self._stage is self._denoise else 2.0
        return {"stage": stage, "kept": float(self._alpha.mean()), **self._engine.diagnostics()}

    def _drawn(self, at: int, loss: float) -> float:
        """The loss and the penalty."""
        return loss + self._stage.penalty * float(np.abs(self._engine.proposals[at]).mean())


def _space(settings: EvoMergingSettings, problem: Problem) -> OperatorSpace:
    """The settings' space with the preset's mode."""
    space = settings.space
    if space.operator == FUSION and "mode" not in space.options:
        space = replace(space, options={**space.options, "mode": _MODES[settings.preset]})
    space.check(problem)
    return space


def _parted(settings: EvoMergingSettings, space: OperatorSpace, problem: Problem) -> tuple[list[int], list[int]]:
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
    parted: dict[str, list[int]] = {settings.alpha: [], settings.beta: []}
    for at, dimension in enumerate(space.dimensions(problem)):
        name = dimension.name.partition(".")[0]
        if name not in parted:
            raise StrategyError(
                f"Evo-Merging searches {settings.alpha} and {settings.beta}, but the space also searches {name!r}; "
                "give it a value in strategy.space.fixed"
            )
        parted[name].append(at)
    alphas, betas = parted[settings.alpha], parted[settings.beta]
    if settings.alpha == settings.beta or len(alphas) < 2 or len(betas) < 2:
        raise StrategyError(
            f"Evo-Merging needs at least 2 numbers of strategy.alpha ({settings.alpha!r}: {len(alphas)}) and of "
            f"strategy.beta ({settings.beta!r}: {len(betas)}) in the operator {space.operator!r}; name its parameters, "
            "one for the share of entries to keep and one that scales"
        )
    return alphas, betas


def _stage(
    settings: EvoMergingSettings,
    name: Literal["denoise", "scale"],
    space: OperatorSpace,
    at: list[int],
    problem: Problem,
) -> _Stage:
    """A stage over some of the space's dimensions.

    Raises:
        StrategyError: fewer evaluations than a generation, or a start out of bounds.
    """
    given = asdict(settings.denoise if name == "denoise" else settings.scale)
    plan = replace(
        _plan(settings.preset, name, len(problem.members)), **{k: v for k, v in given.items() if v is not None}
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
    return _Stage(
        name=name,
        search=search,
        at=np.array(at),
        held=np.array([one.inner(held) for one in dimensions]),
        penalty=plan.penalty,
        generations=-(-plan.evaluations // popsize),
    )
