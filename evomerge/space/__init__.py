"""Search spaces: what the vectors of an optimizer stand for."""

from __future__ import annotations

from evomerge.space.operators import OperatorSpace
from evomerge.space.paths import PathSpace
from evomerge.space.port import Dimension, Floats, Space
from evomerge.space.weights import WeightSpace, on_simplex

AnySpace = WeightSpace | OperatorSpace | PathSpace
"""What a study file's ``space`` may be, told apart by ``kind``; strategies' settings use it as the type."""

__all__ = ["AnySpace", "Dimension", "Floats", "OperatorSpace", "PathSpace", "Space", "WeightSpace", "on_simplex"]
