"""The nouns of a search: recipe, candidate, score, and what came of evaluating one.

All are frozen values without behaviour that matters; the exact codec writes each of them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge import codec
from evomerge.errors import EvaluationError

Split = Literal["search", "selection", "report"]
Array = NDArray[Any]

MEMBER = "pool:"
ANCESTOR = "recipe:"


@dataclass(frozen=True, slots=True)
class Segment:
    """The half-open range ``start:stop`` of one parameter group, and the operator's values there.

    What the values are is the operator's business: weights of the sources for ``linear``, ``(t,)`` for ``slerp``.
    """

    group: str
    start: int
    stop: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Noise:
    """Seeded mutation: N(0, scale^2) on every coordinate, regenerated from ``(seed, number)`` and never stored."""

    scale: float
    seed: int
    number: int


@dataclass(frozen=True)
class Recipe:
    """Pure data that says how to build one merged model. Equal digests build equal bytes.

    ``sources`` are pool members (``"pool:NAME"``) or earlier recipes (``"recipe:DIGEST"``), so that a digest covers
    the whole ancestry. ``segments`` tile every parameter group; ``options`` are the operator's own settings, sorted.
    """

    operator: str
    sources: tuple[str, ...]
    segments: tuple[Segment, ...]
    options: tuple[tuple[str, str | int | float | bool], ...] = ()
    noise: Noise | None = None

    @cached_property
    def text(self) -> str:
        """The exact text, as `evomerge.codec` writes it."""
        return codec.dump(self)

    @cached_property
    def digest(self) -> str:
        """128 bits of BLAKE2b over the exact text, as 32 hexadecimal digits."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()

    @property
    def ancestors(self) -> tuple[str, ...]:
        """Digests of the recipes this one is directly built from."""
        return tuple(s.removeprefix(ANCESTOR) for s in self.sources if s.startswith(ANCESTOR))


@dataclass(frozen=True, slots=True)
class Request:
    """How a candidate is to be evaluated on the search split, where it is not simply once on all of its items.

    Attributes:
        ranges: half-open ranges of places in the study's item order (see `evomerge.itemorder`); None: every item.
            The score's rows then have one number per asked item, in the order of the ranges, and its objectives are
            those of these items.
        replicate: which repetition it is, for a fitness with noise of its own.
        slopes: the loss's slopes towards the pool's models are wanted, too (`Score.slopes`).
    """

    ranges: tuple[tuple[int, int], ...] | None = None
    replicate: int = 0
    slopes: bool = False

    @property
    def size(self) -> int | None:
        """How many items are asked for; None is all of them."""
        return None if self.ranges is None else sum(stop - start for start, stop in self.ranges)

    def count(self, items: int) -> int:
        """How many of ``items`` are asked for."""
        return items if self.size is None else self.size


WHOLE = Request()


@dataclass(frozen=True)
class Candidate:
    """A numbered recipe with its history: what Optuna calls a trial.

    ``number`` is dense within the study; ``parents`` are candidate numbers, first parent first; ``generation`` is
    one more than the largest parent's; ``origin`` is the strategy's word for how it came about; ``request`` says how
    it is to be evaluated on the search split.
    """

    number: int
    recipe: Recipe
    parents: tuple[int, ...] = ()
    generation: int = 0
    origin: str = ""
    request: Request = WHOLE


@dataclass(frozen=True, eq=False)
class Score:
    """What a fitness found out about one model on one split.

    ``objectives`` are name and value, in the fitness's order. ``items`` (bool for right/wrong, else float) and
    ``losses`` (float) hold one number per item of the split, same order for every candidate; ``None`` where the
    fitness has no such thing. ``notes`` are free text, never read by a strategy.
    ``slopes``, where they were asked for, is float64 of shape (groups, members), with one more column for the base,
    where there is one: the derivative of the mean loss as a group's weights are moved from this model towards the
    other's, ``<gradient, theta_i - theta>``.
    """

    objectives: tuple[tuple[str, float], ...]
    items: Array | None = None
    losses: Array | None = None
    notes: tuple[tuple[str, str], ...] = ()
    slopes: Array | None = None

    def __getitem__(self, objective: str) -> float:
        for name, value in self.objectives:
            if name == objective:
                return value
        known = ", ".join(name for name, _ in self.objectives) or "none at all"
        raise EvaluationError(f"the score has no objective {objective!r}; the fitness returned: {known}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation took. Differs from run to run, so nothing is decided by it."""

    seconds: float = 0.0
    attempts: int = 1
    worker: str = ""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A candidate with its score, or with the reason why there is none (exactly one of the two)."""

    candidate: Candidate
    score: Score | None = None
    failure: str | None = None
    cost: Cost = field(default_factory=Cost)


def check_items(score: Score, items: int) -> None:
    """Refuse a score that has not exactly one number for each of the split's items.

    Raises:
        EvaluationError: per-item scores are missing, or there are more or fewer of them (or of the losses).
    """
    if score.items is None:
        raise EvaluationError(f"the fitness returned no per-item scores, but said that the split has {items} items")
    for what, values in (("items", score.items), ("losses", score.losses)):
        if values is not None and values.shape != (items,):
            raise EvaluationError(f"per-item {what} have shape {values.shape}, but the split has {items} items")


def check_score(score: Score, items: int | None = None) -> Score:
    """The score with plain floats as objectives, if it is usable.

    ``items`` is how many items the split has, ``None`` if it has no items.

    Raises:
        EvaluationError: no objective, a value that is not finite, per-item scores missing or not ``items`` of them.
    """
    if items is not None:
        check_items(score, items)
    if not score.objectives:
        raise EvaluationError("the fitness returned no objective; return at least one name and value")
    for name, value in score.objectives:
        if not math.isfinite(value):
            raise EvaluationError(f"the fitness returned {value} for objective {name!r}; objectives must be finite")
    for what, values in (("items", score.items), ("losses", score.losses)):
        if values is None:
            continue
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise EvaluationError(f"per-item {what} are not finite, first at item {first}")
    if score.slopes is not None and not np.isfinite(score.slopes).all():
        raise EvaluationError("the slopes of the loss are not finite; the model's outputs overflow here")
    if all(type(value) is float for _, value in score.objectives):
        return score
    return replace(score, objectives=tuple((name, float(value)) for name, value in score.objectives))
