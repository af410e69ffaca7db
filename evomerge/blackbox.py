"""The port of fitnesses that build candidates elsewhere: the pool is theirs, and no weights are on this side.

A study with such a fitness has no ``pool`` of its own. Its recipes go out as values and come back as scores; neither
models nor torch are needed here. Beside `Fitness`'s contract:

* ``score`` (and ``score_part``) get a `Family` and may be called by several threads at once;
* they raise `AncestorsWanted` where the other side does not know what a recipe is made of, never when given all of it;
* they raise `ServiceError` where the other side is at fault, which stops the study and fails no candidate.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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


@dataclass(frozen=True)
class Family:
    """A recipe, and what it is made of as far as that was asked for, oldest first: what a `BlackBox` scores."""

    recipe: Recipe
    ancestors: tuple[Recipe, ...] = ()


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
    def score(self, model: Family, split: Split) -> Score:
        """The score of the model that a recipe stands for.

        Raises:
            AncestorsWanted: the other side does not know all that the recipe is made of.
            ServiceError: there is no answer, or no usable one.
            EvaluationError: the candidate cannot be built or scored.
        """

    def skeleton(self, folder: Path) -> Any:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{type(self).__name__} builds its candidates elsewhere; there is no model on this side")
