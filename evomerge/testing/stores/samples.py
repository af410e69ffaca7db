"""A made-up but complete journal: failures, notes, odd arrays, changes; the same for the same length."""

from __future__ import annotations

import numpy as np

from evomerge.candidate import WHOLE, Array, Candidate, Cost, Evaluated, Noise, Recipe, Request, Score, Segment
from evomerge.store.port import Change, StudyRecord, Turn

WINDOW = 3
SLOTS = 4

RECORD = StudyRecord(
    name="digits",
    config="study: digits # as written, ümlauts too\n",
    settings={"strategy": '{"name":"m2n2"}', "budget": "{}"},
    seed=2**70 + 1,
    objective="accuracy",
    direction="maximize",
    versions={"numpy": "2.0"},
    pool={"a": "00ff"},
)


def candidate(number: int) -> Candidate:
    """Candidate ``number``: the first two are pool members, each later one a child of earlier ones."""
    if number < 2:
        recipe = Recipe("linear", (f"pool:{'ab'[number]}",), (Segment("all", 0, 10, (1.0,)),))
        return Candidate(number, recipe, origin="seed")
    parents = (number - 1, number // 2) if number % 3 else (number - 2,)
    split = 1 + number % 9
    segments = (Segment("all", 0, split, (1 / number,)), Segment("all", split, 10, (0.1 + 0.2,)))
    noise = Noise(1e-3, 2**63, number) if number % 2 else None
    request = Request(((0, 3), (number, number + 8)), number, slopes=True) if number % 4 == 3 else WHOLE
    recipe = Recipe("slerp", ("pool:a", f"pool:{number}"), segments, (("angle", "global"), ("n", number)), noise)
    return Candidate(number, recipe, parents, number - 1, "crossover", request)


def result(of: Candidate, items: int = 11) -> Evaluated:
    """What came of evaluating a candidate; every fifth fails."""
    cost = Cost(0.25 * of.number, 1 + of.number % 2, f"worker-{of.number % 2}")
    if of.number % 5 == 4:
        return Evaluated(of, None, f"diverged at step {of.number}:\n\0 \ud800 ünreadable", cost)
    random = np.random.default_rng(of.number)
    right: Array = random.random(items) < 0.5
    losses: Array = random.random(items).astype(np.float32)
    objectives = (("accuracy", float(right.mean())), ("loss", float(losses.mean())))
    notes = (("seen", "yes ✓"),) if of.number % 2 else ()
    slopes = random.standard_normal((2, 3)) if of.request.slopes else None
    return Evaluated(of, Score(objectives, right, losses, notes, slopes), None, cost)


def turns(length: int) -> list[Turn]:
    """The first ``length`` turns."""
    return [turn(seq) for seq in range(length)]


def turn(seq: int) -> Turn:
    """Turn ``seq``: the first asks `WINDOW` candidates, each later one tells one and asks one."""
    if seq == 0:
        return Turn(0, asked=tuple(candidate(number) for number in range(WINDOW)))
    number = seq - 1
    told = result(candidate(number))
    changes = (Change(number % SLOTS, number if number % 7 else None),) if told.score is not None else ()
    return Turn(seq, (told,), (candidate(seq + WINDOW - 1),), changes)
