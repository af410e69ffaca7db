"""What single results say of a candidate: those on some of the items only together, once they cover all of them."""

from __future__ import annotations

import math

from evomerge import config
from evomerge.candidate import Evaluated
from evomerge.store.port import StudyRecord
from evomerge.strategy import Problem


class Values:
    """The main objective of results in the order told; NaN where a result completes nothing.

    A candidate that is scored in rounds has the mean over its items, when the last of them is told.
    """

    def __init__(self, record: StudyRecord) -> None:
        known = "problem" in record.settings
        self._items = config.typed(Problem, record.settings["problem"], "problem").items if known else 0
        self._objective = record.objective
        self._begun: dict[str, tuple[int, float]] = {}  # by digest: items seen, and the sum over them

    def of(self, evaluated: Evaluated) -> float:
        """The value that this result gives its candidate."""
        if evaluated.score is None:
            return math.nan
        value, size = evaluated.score[self._objective], evaluated.candidate.request.size
        if size is None:
            return value
        digest = evaluated.candidate.recipe.digest
        seen, total = self._begun.pop(digest, (0, 0.0))
        seen, total = seen + size, total + size * value
        if seen == self._items:
            return total / seen
        self._begun[digest] = (seen, total)
        return math.nan
