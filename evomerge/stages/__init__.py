"""Strategies one after the other in one study."""

from __future__ import annotations

from evomerge.stages.chain import Stage, Stages, StagesSettings

__all__ = ["Stage", "Stages", "StagesSettings"]
