"""How a search went, from a stored study: best value, coverage, entropy and niches over evaluations, and its front."""

from __future__ import annotations

from evomerge.history.curves import History, read_history
from evomerge.history.front import ParetoFront, read_front
from evomerge.history.plot import plot_history
from evomerge.history.plot_front import plot_front

__all__ = ["History", "ParetoFront", "plot_front", "plot_history", "read_front", "read_history"]
