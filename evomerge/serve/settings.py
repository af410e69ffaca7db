"""What a pool server's file says, section by section."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt

from evomerge.fitness import Splits
from evomerge.settings import Choice, ExecutorSettings, MergeSettings, PoolSettings


@dataclass(frozen=True)
class LimitSettings:
    """What a server takes and gives. A token may have limits of its own in the place of the first two.

    Attributes:
        evaluations: candidates that one token may have scored, in all; default: no limit.
        items: items that one token may have scored, in all candidates; default: no limit.
        waiting: candidates that may wait for their evaluation; one more is sent away for a while.
        body_mb: size of a request in MB.
        segments: segments of one recipe.
        values: values of one recipe, in all its segments.
        ancestors: recipes that one recipe may be made of, over all generations.
        answers: how many answers are kept, so that a request that is repeated because its answer was lost is not
            computed and counted again.
        recipes_mb: room for the recipes that a token has sent, in MB; the oldest have to be sent again.
    """

    evaluations: Annotated[int, Gt(0)] | None = None
    items: Annotated[int, Gt(0)] | None = None
    waiting: Annotated[int, Gt(0)] = 64
    body_mb: Annotated[int, Gt(0)] = 16
    segments: Annotated[int, Gt(0)] = 20_000
    values: Annotated[int, Gt(0)] = 1_000_000
    ancestors: Annotated[int, Gt(0)] = 20_000
    answers: Annotated[int, Gt(0)] = 1_000
    recipes_mb: Annotated[int, Gt(0)] = 64


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """A whole server file. Its sections are those of a study file, without the search.

    Attributes:
        pool: the models to merge.
        fitness: what scores a model, by name, and its settings.
        splits: which items are used for what; nobody can ask for others.
        merge: how candidates are built.
        executor: where they are scored: ``inline`` or ``ray``.
        operators: the merge operators that recipes may name, by default linear, task_arithmetic and slerp; no other is
            ever loaded.
        anonymous: members are called m1, m2, ... in their order, and not by their names.
        limits: what the server takes and gives.
    """

    pool: PoolSettings
    fitness: Choice
    splits: Splits
    merge: MergeSettings = field(default_factory=MergeSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    operators: tuple[str, ...] = ("linear", "task_arithmetic", "slerp")
    anonymous: bool = False
    limits: LimitSettings = field(default_factory=LimitSettings)
