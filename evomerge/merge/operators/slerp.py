"""Spherical linear interpolation, and with two segments the split-point child of M2N2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values


@dataclass(frozen=True)
class Slerp(LinearOperator):
    """``[sin((1-t) W) A + sin(t W) B] / sin W`` on the raw vectors, W the angle between them (Shoemake 1985).

    ``angle``: one W from the whole vectors of all groups (``global``: M2N2's published code), one per segment (its
    Eq. 2), or one per tensor (mergekit's way). Where ``sin W <= straight`` (mergekit: 0.0316, so 1.81 degrees), or a
    vector is zero, it is the line ``(1-t) A + t B``. Value: one ``t``.
    """

    angle: Literal["global", "per_segment", "per_tensor"] = "global"
    straight: float = 1e-6

    parameters: ClassVar = (Parameter("t", 0.0, 1.0, 0.5),)
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.angle not in ("global", "per_segment", "per_tensor"):
            raise RecipeError(f"slerp has no angle {self.angle!r}; it is 'global', 'per_segment' or 'per_tensor'")

    @property
    def per_tensor(self) -> bool:
        """Whether each tensor has an angle of its own."""
        return self.angle == "per_tensor"

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The weights of A and B; at ``t`` 0 and 1 exactly one of them alone."""
        t = values.one("t")
        omega = stretch.angle("global" if self.angle == "global" else "per_segment")
        sine = 0.0 if omega is None else math.sin(omega)
        if omega is None or sine <= self.straight:
            return (1.0 - t, t)
        return (math.sin((1.0 - t) * omega) / sine, math.sin(t * omega) / sine)
