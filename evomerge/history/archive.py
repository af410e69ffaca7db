"""The population's per-item scores as it changes, and what they say about its diversity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diversity:
    """Of one moment; see `Archive` for what the numbers mean."""

    filled: int
    coverage: float
    entropy: float
    niche_min: float
    niche_max: float


class Archive:
    """Rows of per-item scores by slot.

    *Coverage*: mean over items of the best score that anyone has, so for right and wrong the share of items somebody
    solves. *Entropy*: mean over items of the binary entropy, in bits, of the mean score (M2N2 paper, Fig. 3 and 5).
    *Niche*: the share of all items that is a member's when each item is split among members by their scores on it.
    """

    def __init__(self) -> None:
        self._rows: dict[int, Array] = {}

    def put(self, slot: int, row: Array | None) -> None:
        """``row`` is now what the slot holds; ``None`` empties it."""
        if row is None:
            self._rows.pop(slot, None)
        else:
            self._rows[slot] = row

    def diversity(self) -> Diversity | None:
        """Of the population as it is; ``None`` while it is empty."""
        if not self._rows:
            return None
        rows: Floats = np.array([self._rows[slot] for slot in sorted(self._rows)], dtype=np.float64)
        total = rows.sum(axis=0)
        share = np.clip(total / len(rows), 0.0, 1.0)
        inner = share[(share > 0.0) & (share < 1.0)]
        bits = -(inner * np.log2(inner) + (1.0 - inner) * np.log2(1.0 - inner)).sum() / share.size
        claimed = total > 0.0
        niches = (rows[:, claimed] / total[claimed]).sum(axis=1) / share.size
        best = float(rows.max(axis=0).mean())
        return Diversity(len(rows), best, float(bits), float(niches.min()), float(niches.max()))
