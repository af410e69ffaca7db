"""Averages of one training run's checkpoints, weighted by what the run said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from evomerge.errors import RecipeError
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values


@dataclass(frozen=True)
class MetricsWeighted(LinearOperator):
    """``sum_i w_i theta_i``, ``w_i`` in proportion to ``loss_i^-p``, or with ``metric = "step"`` to ``step_i^p``.

    Metrics-weighted averaging is by Yu & Choi (2025); that the weights are powers is evomerge's reading of it. The
    numbers are those of ``pool.statistics``. ``p = 0`` is the mean, a large p the best checkpoint, or the last. Only
    the ``window`` checkpoints of the highest steps count (0: all). Values: ``p``, ``window``.
    """

    metric: Literal["loss", "step"] = "loss"

    parameters: ClassVar = (
        Parameter("p", 0.0, 10.0, 1.0, limits=(0.0, math.inf)),
        Parameter("window", 0, 16, 0, kind="integer", limits=(0.0, math.inf)),
    )

    def __post_init__(self) -> None:
        check_options(self)

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The checkpoints' shares."""
        numbers = stretch.attached(self.metric)
        if min(numbers) <= 0.0 or not all(map(math.isfinite, numbers)):
            raise RecipeError(f"metrics_weighted cannot weight by {self.metric}: {numbers} are not all above 0")
        power = values.one("p") * (-1.0 if self.metric == "loss" else 1.0)
        heights = [power * math.log(number) for number in numbers]
        kept = _latest(stretch, int(values.one("window")))
        top = max(heights[at] for at in kept)
        weights = [math.exp(height - top) if at in kept else 0.0 for at, height in enumerate(heights)]
        total = math.fsum(weights)
        return tuple(weight / total for weight in weights)


def _latest(stretch: Stretch, window: int) -> Sequence[int]:
    """Which sources are in the window; a tie goes to the source named first."""
    sources = range(stretch.sources)
    if not window:
        return sources
    steps = stretch.attached("step")
    return sorted(sources, key=lambda at: -steps[at])[:window]
