"""Who descends from whom: recipes by digest for workers, candidates by number for people."""

from __future__ import annotations

from evomerge.lineage.family import Family, Relative, contributions, trace
from evomerge.lineage.picture import draw
from evomerge.lineage.recipes import Lookup, ancestry
from evomerge.lineage.text import tree_text

__all__ = ["Family", "Lookup", "Relative", "ancestry", "contributions", "draw", "trace", "tree_text"]
