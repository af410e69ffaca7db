"""What a study file may say of Evo-Merging, and what its presets say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from evomerge.space import OperatorSpace

FUSION = "factor_fusion"

Preset = Literal["improved", "faithful", "lorahub"]


@dataclass(frozen=True)
class StageSettings:
    """A stage. What is not given is as the preset says.

    Attributes:
        start: first mean, the same for every number. Where it is not given, scales start at ``1/N``, with LoraHub at 0;
            in the improved preset at the best member alone, if no merge of the first stage was better.
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
class Plan:
    """A stage's settings, all of them given."""

    start: float
    sigma: float
    penalty: float
    evaluations: int


def plan_of(preset: Preset, stage: Literal["denoise", "scale"], members: int) -> Plan:
    """What the preset says."""
    if stage == "denoise":
        return {
            "improved": Plan(0.5, 0.2, 0.05, 400),
            "faithful": Plan(1.0, 0.05, 0.05, 400),
            "lorahub": Plan(1.0, 0.05, 0.05, 0),
        }[preset]
    return {
        "improved": Plan(1.0 / members, 0.1, 0.05, 800),
        "faithful": Plan(1.0 / members, 0.05, 0.05, 800),
        "lorahub": Plan(0.0, 0.2, 0.05, 40),
    }[preset]
