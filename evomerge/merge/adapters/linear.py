"""A linear combination of adapters as an adapter: no decomposition, no error."""

from __future__ import annotations

import math
from itertools import pairwise

from evomerge.errors import RecipeError
from evomerge.merge.adapters.factors import Factors, stretch, total
from evomerge.merge.adapters.sources import Member, Members
from evomerge.merge.layout import Slot
from evomerge.merge.pool import ModelPool
from evomerge.merge.table import Table

_ROUNDING = 1e-9


class LinearAdapter:
    """``sum_j c_j theta_j`` over the base and adapters, with ``sum_j c_j = 1``: it adds ``sum_j c_j s_j B_j A_j``.

    Ranks add up. A tensor whose coefficients change within it has the sum of its stretches.

    Raises:
        RecipeError: the base itself is scaled, or a source counts that is no adapter.
    """

    def __init__(self, pool: ModelPool, table: Table, members: Members) -> None:
        self._parts = table.parts
        self._members: dict[int, Member] = {}
        for group, (bounds, rows) in table.parts.items():
            for (start, stop), row in zip(pairwise(bounds.tolist()), rows.tolist(), strict=True):
                if abs(math.fsum(row) - 1.0) > _ROUNDING * math.fsum(map(abs, row)):
                    raise RecipeError(
                        f"on {group}[{start}:{stop}] the coefficients of all models sum to {math.fsum(row):.6g} "
                        "instead of 1, so the base's own weights change"
                    )
        for at, source in enumerate(pool.sources):
            if source != pool.base and any(rows[:, at].any() for _, rows in table.parts.values()):
                self._members[at] = members.get(source)

    def factors(self, slot: Slot) -> Factors | None:
        """Stretch by stretch, the coefficients within the columns of ``B``."""
        there = {at: found for at, member in self._members.items() if (found := member.factors(slot)) is not None}
        bounds, rows = self._parts[slot.group]
        terms: list[Factors] = []
        for (start, stop), row in zip(pairwise(bounds.tolist()), rows.tolist(), strict=True):
            low, high = max(start - slot.offset, 0), min(stop - slot.offset, slot.size)
            if low < high and (summed := total([(row[at], found) for at, found in there.items()])) is not None:
                terms += [summed] if high - low == slot.size else stretch(summed, low, high)
        return terms[0] if len(terms) == 1 else total([(1.0, term) for term in terms])
