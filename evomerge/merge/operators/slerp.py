"""Spherical linear interpolation, and with two segments the split-point child of M2N2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Angle, Operator, Parameter, Scope


@dataclass(frozen=True)
class Slerp(Operator):
    """``[sin((1-t) W) A + sin(t W) B] / sin W`` on the raw vectors, W the angle between them (Shoemake 1985).

    ``angle``: one W from the whole vectors of all groups (``global``: M2N2's published code), or one per segment (its
    Eq. 2). Where ``sin W <= straight``, or a vector is zero, it is the line ``(1-t) A + t B``. Value: one ``t``.
    """

    angle: Scope = "global"
    straight: float = 1e-6

    parameter: ClassVar = Parameter("t", 0.0, 1.0, 0.5, "segment")
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        if self.angle not in ("global", "per_segment"):
            raise RecipeError(f"slerp has no angle {self.angle!r}; it is 'global' or 'per_segment'")

    def coefficients(self, values: Sequence[float], angle: Angle) -> tuple[float, ...]:
        """The weights of A and B; at ``t`` 0 and 1 exactly one of them alone."""
        (t,) = values
        omega = angle(self.angle)
        sine = 0.0 if omega is None else math.sin(omega)
        if omega is None or sine <= self.straight:
            return (1.0 - t, t)
        return (math.sin((1.0 - t) * omega) / sine, math.sin(t * omega) / sine)
