"""One model as it is, or scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values


@dataclass(frozen=True)
class Passthrough(LinearOperator):
    """``scale theta``: a copy at 1, zeros at 0. Value: one ``scale``."""

    parameters: ClassVar = (Parameter("scale", 0.0, 1.5, 1.0),)
    most: ClassVar[int | None] = 1

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The scale itself."""
        return (values.one("scale"),)
