"""What goes between a pool server and those who search through it: JSON with names, read strictly.

Every number survives the way bit for bit: floats are written with the shortest decimal that reads back equal, and
per-item numbers carry their dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np

from evomerge.candidate import Array, Recipe, Score, Split
from evomerge.errors import CodecError
from evomerge.fitness import Splits
from evomerge.strategy import Group, Objective

T = TypeVar("T")

PROTOCOL = 1
"""Raised when a server and a client of different versions would misunderstand one another."""


@dataclass(frozen=True)
class Limits:
    """What a server takes in one request, and what is left to the one who asks (``None``: no limit).

    ``segments`` and ``values`` are of one recipe, ``ancestors`` of all its ancestry.
    """

    body_bytes: int
    segments: int
    values: int
    ancestors: int
    evaluations: int | None
    items: int | None


@dataclass(frozen=True)
class Offer:
    """All that a server says of its pool: ``GET /v1/pool``.

    ``splits`` are ranges of the server's items and ``items`` how many are scored singly in each (0: none is).
    ``losses``, ``parts`` and ``noisy`` are what `evomerge.fitness.Fitness` says of its scores. ``digest`` changes with
    whatever scores depend on: weights, data, settings. ``workers`` candidates are scored at once.
    """

    protocol: int
    members: tuple[str, ...]
    base: str | None
    groups: tuple[Group, ...]
    operators: tuple[str, ...]
    objectives: tuple[Objective, ...]
    splits: Splits
    items: dict[Split, int]
    losses: bool
    parts: bool
    noisy: bool
    digest: str
    workers: int
    versions: dict[str, str]
    limits: Limits


@dataclass(frozen=True)
class Control:
    """A recipe in short: the operator's values, the same for every group, over all members (the base first, if any)."""

    operator: str
    values: tuple[float, ...]
    options: tuple[tuple[str, str | int | float | bool], ...] = ()


@dataclass(frozen=True)
class Question:
    """``POST /v1/score``: one candidate, as ``recipe`` or as ``control``, on one split.

    ``ancestors`` are recipes that the recipe is made of, oldest first, which the server may not know (any more).
    ``places`` are the items of the split that are wanted (``null``: all of them), and ``replicate`` tells repetitions
    apart where scores are noisy.
    """

    recipe: Recipe | None = None
    control: Control | None = None
    ancestors: tuple[Recipe, ...] = ()
    split: Split = "search"
    places: tuple[int, ...] | None = None
    replicate: int = 0


@dataclass(frozen=True)
class Numbers:
    """One number per item; booleans are 0 and 1."""

    dtype: Literal["bool", "float16", "float32", "float64"]
    values: tuple[float, ...]

    @classmethod
    def of(cls, array: Array) -> Numbers:
        """The numbers of an array with one of these dtypes.

        Raises:
            CodecError: it has another one.
        """
        name: Any = array.dtype.name
        if name not in ("bool", "float16", "float32", "float64"):
            raise CodecError(f"per-item numbers are {name}; a fitness gives booleans or floats")
        return cls(name, tuple(array.astype(np.float64).tolist()))

    @property
    def array(self) -> Array:
        """As an array of their dtype."""
        return np.array(self.values, dtype=np.float64).astype(self.dtype)


@dataclass(frozen=True)
class Answer:
    """What came of a `Question`: the recipe's digest, and the score.

    ``places`` say which item of the split each number of ``items`` and ``losses`` belongs to.
    """

    digest: str
    split: Split
    objectives: tuple[tuple[str, float], ...]
    places: tuple[int, ...] = ()
    items: Numbers | None = None
    losses: Numbers | None = None

    @property
    def score(self) -> Score:
        """The score, item by item as it was answered."""
        items, losses = (None if numbers is None else numbers.array for numbers in (self.items, self.losses))
        return Score(self.objectives, items, losses)


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer: a word for programs and a sentence for people. ``missing``: digests of ancestors."""

    code: str
    message: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The body of every answer that is an error."""

    error: Refusal = field(default_factory=lambda: Refusal("unknown", "no reason was given"))


def dump(value: Any) -> bytes:
    """One of the dataclasses above as JSON."""
    kind: Any = type(value)
    body: bytes = _adapter(kind).dump_json(value)
    return body


def load(kind: type[T], body: bytes, *, strangers: bool = False) -> T:
    """The value of ``kind`` in a JSON text; with ``strangers`` keys that it does not have are passed over.

    Raises:
        CodecError: saying where the text is not what it should be.
    """
    from pydantic import ValidationError

    wanted: Any = kind
    try:
        found: T = _adapter(wanted).validate_json(body, strict=True, extra="ignore" if strangers else "forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise CodecError(f"{place}: {first['msg']}") from error
    return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
