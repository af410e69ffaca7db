"""The port of fitnesses that build candidates elsewhere: the pool is theirs, and no weights are on this side.

A study with such a fitness has no ``pool`` of its own. Its recipes go out as values and come back as scores; neither
models nor torch are needed here. Beside `Fitness`'s contract:

* ``evaluate`` may be called by several threads at once;
* it raises `AncestorsWanted` where the other side does not know what a recipe is made of, never when given all of it;
* it raises `ServiceError` where the other side is at fault, which stops the study and fails no candidate.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Score, Split
from evomerge.errors import ConfigError, EvomergeError
from evomerge.fitness import Fitness
from evomerge.strategy import Group


class AncestorsWanted(EvomergeError):
    """The other side lacks ancestors of a recipe: send them all along."""


@dataclass(frozen=True)
class RemotePool:
    """What a study must know of a pool that is elsewhere.

    ``operators`` are those that may be used; ``content`` are digests of all that scores depend on, and ``versions`` of
    libraries there: both are kept with the study and compared when it resumes.
    """

    place: str
    members: tuple[str, ...]
    base: str | None
    groups: tuple[Group, ...]
    operators: tuple[str, ...]
    content: dict[str, str]
    versions: dict[str, str]

    def digests(self) -> dict[str, str]:
        """Content digests, as the study keeps them."""
        return self.content


class BlackBox(Fitness):
    """A fitness that brings its own pool. See the module's docstring."""

    gets: Literal["model", "recipe"] = "recipe"

    @abstractmethod
    def pool(self) -> RemotePool:
        """What there is to merge.

        Raises:
            ServiceError: the other side does not say.
            ConfigError: it has not what the settings ask for.
        """

    @abstractmethod
    def evaluate(
        self,
        recipe: Recipe,
        ancestors: tuple[Recipe, ...],
        split: Split,
        places: NDArray[np.int64] | None = None,
        replicate: int = 0,
    ) -> Score:
        """The score of the model that a recipe stands for; ``ancestors`` oldest first, as far as they were asked for.

        ``places`` and ``replicate`` are as in `Fitness.score_part`; ``None`` is the whole split.

        Raises:
            AncestorsWanted: some are not known there.
            ServiceError: there is no answer, or no usable one.
            EvaluationError: the candidate cannot be built or scored.
        """

    def score(self, model: Any, split: Split) -> Score:
        """The score of a recipe that needs no ancestors."""
        return self.evaluate(model, (), split)

    def skeleton(self, folder: Path) -> Any:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{type(self).__name__} builds its candidates elsewhere; there is no model on this side")
