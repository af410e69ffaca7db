"""What a study would take: pool members scored for real, and time and memory from that."""

from __future__ import annotations

import time
from dataclasses import dataclass

from evomerge.blackbox import RemotePool
from evomerge.candidate import MEMBER, Candidate, Recipe, Score, Segment
from evomerge.errors import EvaluationError
from evomerge.evaluator import EvaluatorFactory, StudyEvaluator
from evomerge.executor.port import Task
from evomerge.merge.report import MemberReport, PoolReport
from evomerge.strategy import Group
from evomerge.study.setup import Setup

_TRIALS = 2
_TIMED_FOR = 0.2
"""Seconds: evaluations shorter than that are timed several times."""


@dataclass(frozen=True)
class Estimate:
    """Measured and projected cost.

    ``scores`` are the tried members' objectives on the search split; ``seconds`` is one evaluation once everything is
    warm, ``total_seconds`` the whole budget with all workers; ``worker_bytes`` the most a worker holds beside the
    libraries, ``shared_bytes`` the pool's files, mapped into memory and shared by the workers of a machine.
    """

    scores: dict[str, dict[str, float]]
    seconds: float
    total_seconds: float
    worker_bytes: int
    shared_bytes: int


def estimate(setup: Setup, factory: EvaluatorFactory) -> Estimate:
    """Score one or two pool members, time merges of them, and project.

    Raises:
        EvaluationError: a member cannot be scored.
    """
    evaluator, members, groups = factory(), setup.pool.members[:_TRIALS], setup.pool.groups
    scores = {one: dict(_score(evaluator, mixture((one,), (1.0,), groups)).objectives) for one in members}
    enough = 0.0 if isinstance(setup.pool, RemotePool) else _TIMED_FOR  # a server's evaluations are counted
    spent, count = 0.0, 0
    while spent <= enough:
        weights = (1.0 / (2 + count), 1.0 - 1.0 / (2 + count))  # other ones each time, lest a cache answer
        recipe = mixture(members, weights[: len(members)], groups)
        began = time.perf_counter()
        _score(evaluator, recipe)
        spent, count = spent + time.perf_counter() - began, count + 1
    settings, report = setup.settings, report_of(setup)
    workers = 1 if settings.executor.kind == "inline" else settings.executor.workers
    evaluations = settings.budget.evaluations + (settings.finalists if "selection" in setup.splits else 0)
    built = 4 * max(one.parameters for one in report.sources) + (settings.merge.cache_mb << 20)
    worker_bytes = 0 if isinstance(setup.pool, RemotePool) else built
    return Estimate(
        scores=scores,
        seconds=spent / count,
        total_seconds=evaluations * spent / count / workers,
        worker_bytes=worker_bytes,
        shared_bytes=sum(one.bytes for one in report.sources),
    )


def report_of(setup: Setup) -> PoolReport:
    """What there is of the pool, wherever it is."""
    pool = setup.pool
    if not isinstance(pool, RemotePool):
        return pool.report()
    size = sum(group.size for group in pool.groups)
    return PoolReport(
        sources=tuple(MemberReport(name, pool.place, "remote", size, 0, ()) for name in pool.members),
        base=pool.base,
        reference=pool.base or pool.members[0],
        groups=pool.groups,
        parameters=size,
        vector_bytes=4 * size,
        copied=(),
        errors=(),
        warnings=(),
    )


def mixture(members: tuple[str, ...], weights: tuple[float, ...], groups: tuple[Group, ...]) -> Recipe:
    """The weighted sum of pool members; one member with weight 1 is that member."""
    segments = tuple(Segment(group.name, 0, group.size, weights) for group in groups)
    return Recipe("linear", tuple(f"{MEMBER}{member}" for member in members), segments)


def _score(evaluator: StudyEvaluator, recipe: Recipe) -> Score:
    answer = evaluator(Task(Candidate(0, recipe)))
    if not isinstance(answer, Score):
        raise EvaluationError(f"recipe {recipe.digest} cannot be built from the pool alone")
    return answer


def warnings(setup: Setup) -> list[str]:
    """What is allowed, but perhaps not meant."""
    settings, found = setup.settings, list(report_of(setup).warnings)
    if "selection" not in setup.splits:
        found.append(
            "splits.selection is empty: the best of the search split becomes the final candidate, and being the "
            "luckiest of many it will look better than it is"
        )
    if "report" not in setup.splits:
        found.append("splits.report is empty: nothing will say how good the final candidate is on unseen items")
    executor = settings.executor
    if executor.kind != "inline" and executor.workers > settings.window:
        found.append(
            f"executor.workers is {executor.workers}, but only window = {settings.window} candidates are out at once; "
            "the other workers stay idle"
        )
    if executor.kind == "ray" and executor.gpus == 0 and _has_gpu():
        found.append("executor.gpus is 0, so workers see no GPU; give the share of one that a worker may use")
    return found


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
