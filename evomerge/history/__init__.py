"""How a search went: best value, coverage, entropy and niches over evaluations, from a stored study."""

from __future__ import annotations

from evomerge.history.curves import History, read_history
from evomerge.history.plot import plot_history

__all__ = ["History", "plot_history", "read_history"]
