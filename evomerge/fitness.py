"""The Fitness port: one live model and a split in, a `Score` out.

A fitness is constructed from its settings (a frozen dataclass) and the study's splits, on whichever worker needs it.
Its contract, checked by `evomerge.testing.FitnessContract`:

* a pure function of (weights, split): same score for the same bytes, whatever was scored before;
* ``items`` and ``losses`` hold one finite number per item, same items in the same order for every candidate;
* it never changes the model it is given, and keeps no reference to it;
* data is read in ``__init__`` or at first use, never at import;
* ``score_part`` of some places gives the numbers that ``score`` gives there, to rounding;
* ``loss_terms`` add up to the mean of ``losses``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Score, Split
from evomerge.errors import ConfigError, EvaluationError
from evomerge.strategy import Objective


@dataclass(frozen=True, slots=True)
class Splits:
    """Which items of the fitness's data set belong to which split, as half-open ranges.

    ``search`` is what the strategy sees; ``selection`` chooses the final candidate among the best and so guards
    against the winner's curse; ``report`` is touched once, at the end. The last two may be empty (``()``).
    """

    search: tuple[tuple[int, int], ...]
    selection: tuple[tuple[int, int], ...] = ()
    report: tuple[tuple[int, int], ...] = ()

    def ranges(self, split: Split) -> tuple[tuple[int, int], ...]:
        """The half-open ranges of one split."""
        return {"search": self.search, "selection": self.selection, "report": self.report}[split]

    def size(self, split: Split) -> int:
        """How many items the split has."""
        return sum(stop - start for start, stop in self.ranges(split))

    def check(self) -> None:
        """Refuse empty ranges and items that are in two places.

        Raises:
            ConfigError: naming the ranges.
        """
        if not self.search:
            raise ConfigError("splits.search is empty; name at least one range of items, such as 0:1000")
        names: tuple[Split, ...] = ("search", "selection", "report")
        spans = [(*span, name) for name in names for span in self.ranges(name)]
        for start, stop, name in spans:
            if start < 0 or stop <= start:
                raise ConfigError(f"splits.{name} has the empty range {start}:{stop}; write start:stop, stop > start")
        spans.sort()
        for (_, before, one), (start, stop, two) in pairwise(spans):
            if start < before:
                shared = f"{start}:{min(before, stop)}"
                raise ConfigError(f"items {shared} are in splits.{one} and in splits.{two}; make them disjoint")

    def check_against(self, available: int, what: str) -> None:
        """Refuse ranges beyond the data.

        Raises:
            ConfigError: naming the split and how many items ``what`` has.
        """
        for name in ("search", "selection", "report"):
            for start, stop in self.ranges(name):
                if stop > available:
                    asked = f"splits.{name} asks for items {start}:{stop}"
                    raise ConfigError(f"{asked}, but {what} has only {available}")


class Fitness(ABC):
    """Scores models. ``Settings`` is a frozen dataclass; ``objectives`` are fixed before anything is loaded."""

    Settings: ClassVar[type]
    gets: Literal["model", "recipe"] = "model"
    """What ``score`` is given: ``"model"`` (a live module with the candidate's weights) or ``"recipe"`` (no weights).
    An instance may choose by its settings; with ``"recipe"`` nobody calls ``skeleton``."""

    parts: bool = False
    """Whether `score_part` is there: scores of some of a split's items."""

    losses: bool = False
    """Whether scores hold a loss for each item."""

    slopes: bool = False
    """Whether `loss_terms` is there: a mean loss that torch can differentiate."""

    noisy: bool = False
    """Whether repeating an evaluation gives another score (sampled answers, say); ``replicate`` tells them apart."""

    root: Path = Path()
    """The folder that relative paths in the settings start from: the study file's. Set before anything is read."""

    @property
    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """Every objective a score of this fitness has, the main one first."""

    @abstractmethod
    def items(self, split: Split) -> int:
        """How many items the split has (0 when items are not scored singly)."""

    @abstractmethod
    def skeleton(self, folder: Path) -> Any:
        """A live model of the architecture that the checkpoint ``folder`` describes, with arbitrary weights.

        It is built once per worker; every candidate is written into its parameters in place.
        """

    @abstractmethod
    def score(self, model: Any, split: Split) -> Score:
        """Score the model on the items of one split."""

    def score_part(self, model: Any, split: Split, places: NDArray[np.int64], replicate: int = 0) -> Score:
        """Score the model on the items at these places of the split, in this order; only where ``parts``.

        ``items`` and ``losses`` hold one number per place, the objectives are those of these items alone.
        """
        raise EvaluationError(f"{type(self).__name__} cannot score some of its items only")

    def loss_terms(self, model: Any, split: Split, places: NDArray[np.int64] | None = None) -> Iterator[Any]:
        """Torch scalars, batch by batch, that add up to the mean loss on the split (or at these places of it).

        Only where ``slopes``. Whoever takes them differentiates each before the next: no graph outlives its batch.
        """
        raise EvaluationError(f"{type(self).__name__} has no loss that can be differentiated")

    def strata(self, split: Split) -> NDArray[np.int64] | None:
        """A class number for each item of the split (its label or task), where items come in kinds; else None."""
        return None

    def check(self, folder: Path) -> None:
        """Raise `EvomergeError` for whatever can be known to be wrong before the first evaluation."""
        for split in ("search", "selection", "report"):
            self.items(split)
        if self.gets == "model":
            self.skeleton(folder)

    def fingerprint(self) -> Mapping[str, str]:
        """Content digests of the data that scores depend on, kept with the study. Cheap; may be empty."""
        return {}
