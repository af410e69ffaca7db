"""Evo-Merging (arXiv 2509.12951) and LoraHub (arXiv 2307.13269): CMA-ES over a pool of adapters, through losses alone.

Two stages. *Denoise*: which share ``alpha_i`` of expert i's entries is kept, every expert scaled by ``beta = 1/N``.
*Scale*: signed ``beta_i``, with ``alpha`` held at the first stage's best. Each minimises the main objective plus a
penalty times the mean of ``|alpha|`` or ``|beta|``. LoraHub is the second stage alone, with every entry kept.

Three presets. ``improved`` begins inside the box, because a search that begins at ``alpha = 1`` with steps of 0.05, as
published, hardly moves within 400 evaluations of a hundred experts; it learns variances only from 50 numbers on;
its second stage begins at the best member where no merge was better; finalists are compared by the objective itself,
since penalties of the two stages differ; and its operator puts the signs of ``beta`` on one side, where a negative
weight subtracts. ``faithful`` is the published search, ``lorahub`` is
LoraHub's objective, box, start and budget. All three use pycma's CMA-ES, where LoraHub's own code calls NGOpt of
nevergrad, which at its budget is Cobyla.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from evomerge.candidate import Recipe
from evomerge.space import OperatorSpace
from evomerge.strategy import Problem, require_members
from evomerge_strategies.evo_settings import FUSION, EvoMergingSettings, Preset
from evomerge_strategies.evo_stages import Stage, parted, stage_of
from evomerge_strategies.generations import Generational, GenerationsState, Searcher
from evomerge_strategies.pycma import Engine, Floats
from evomerge_strategies.seeds import member_recipe

_MODES: dict[Preset, str] = {"improved": "concat", "faithful": "ab_separate", "lorahub": "ab_separate"}


class EvoMerging(Generational):
    """See the module's docstring."""

    Settings = EvoMergingSettings
    State = GenerationsState

    def __init__(self, settings: EvoMergingSettings, problem: Problem) -> None:
        require_members(problem, 2, "Evo-Merging")
        improved = settings.preset == "improved"
        super().__init__(problem, (), settings.hall_of_fame)
        self._space = _space(settings, problem)
        alphas, betas = parted(settings, self._space, problem)
        denoise = stage_of(settings, "denoise", self._space, alphas, problem)
        self._stages = denoise, stage_of(settings, "scale", self._space, betas, problem)
        self._members = improved if settings.score_members is None else settings.score_members
        self._penalised = (settings.finalists_by or ("objective" if improved else "penalised")) == "penalised"

    def searcher(self) -> Searcher:
        """Before the members, or at the first stage's start."""
        return _Stages(self._problem, self._space, self._stages, members=self._members, penalised=self._penalised)


class _Stages(Searcher):
    """The members, then one stage's engine after the other's; the best of the first is held fixed in the second."""

    def __init__(
        self, problem: Problem, space: OperatorSpace, stages: tuple[Stage, Stage], *, members: bool, penalised: bool
    ) -> None:
        self._problem, self._space, self._penalised = problem, space, penalised
        self._denoise, self._scale = stages
        self._least, self._alpha = (math.inf, math.inf), self._denoise.held
        self._member = (math.inf, -1)
        self._stage: Stage | None = None
        self._left, self.origin = 1, "seed"
        if not members:
            self._begin(self._denoise if self._denoise.generations else self._scale)

    def _begin(self, stage: Stage) -> None:
        self._stage, self._left = stage, stage.generations
        self.origin = stage.name
        self._engine = Engine(stage.search)

    @property
    def size(self) -> int:
        if self._stage is None:
            return len(self._problem.members)
        return len(self._engine.proposals) if self._left else 0

    @property
    def finished(self) -> str | None:
        return None if self._left else "both stages have spent their evaluations; raise strategy.scale.evaluations"

    def recipe(self, at: int) -> Recipe:
        if self._stage is None:
            return member_recipe(self._problem, self._problem.members[at])
        x = np.empty(len(self._denoise.at) + len(self._scale.at))
        x[self._denoise.at] = self._alpha
        x[self._scale.at] = self._scale.held
        x[self._stage.at] = self._engine.proposals[at]
        return self._space.decode(self._problem, x)

    def value(self, at: int, loss: float) -> float:
        return self._drawn(at, loss) if self._penalised else loss

    def tell(self, losses: Floats) -> None:
        """The members, or a whole generation; after the last of the first stage the second begins."""
        if self._stage is None:
            self._member = min((loss, at) for at, loss in enumerate(losses.tolist()))
            self._begin(self._denoise if self._denoise.generations else self._from_the_best())
            return
        minimised = np.array([self._drawn(at, loss) for at, loss in enumerate(losses.tolist())])
        first = int(minimised.argmin())
        if self._stage is self._denoise and (minimised[first], losses[first]) < self._least:
            self._least, self._alpha = (float(minimised[first]), float(losses[first])), self._engine.proposals[first]
        self._left -= 1
        if self._left:
            self._engine.tell(minimised)
        elif self._stage is self._denoise:
            self._begin(self._from_the_best())

    def _from_the_best(self) -> Stage:
        """The second stage. If a member is better than all merges of the first, it begins at that member alone."""
        loss, member = self._member
        if not self._scale.adopts or loss >= self._least[1]:
            return self._scale
        self._alpha = np.where(self._denoise.owners == member, 1.0, self._alpha)
        alone = np.where(self._scale.owners == member, 1.0, 0.0)
        return replace(self._scale, search=replace(self._scale.search, start=alone))

    def diagnostics(self) -> dict[str, float]:
        if self._stage is None:
            return {"stage": 0.0}
        stage = 1.0 if self._stage is self._denoise else 2.0
        return {"stage": stage, "kept": float(self._alpha.mean()), **self._engine.diagnostics()}

    def _drawn(self, at: int, loss: float) -> float:
        """The loss and the penalty."""
        if self._stage is None:
            return loss
        return loss + self._stage.penalty * float(np.abs(self._engine.proposals[at]).mean())


def _space(settings: EvoMergingSettings, problem: Problem) -> OperatorSpace:
    """The settings' space with the preset's mode."""
    space = settings.space
    if space.operator == FUSION and "mode" not in space.options:
        space = replace(space, options={**space.options, "mode": _MODES[settings.preset]})
    space.check(problem)
    return space
