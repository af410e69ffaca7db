"""A fitness that takes 100 ms in two windows of the study and no time elsewhere, and notes when it ran."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Score

HERE = Path(__file__).parent
SECONDS = 0.1


def windows(budget: int, length: int) -> tuple[range, range]:
    """Candidates 100 and following, and the last ones."""
    return range(100, 100 + length), range(budget - length, budget)


@cache
def log() -> IO[str]:
    """This worker's notes: candidate, begun, ended (seconds on the machine's monotonic clock)."""
    return (HERE / f"log-{os.getpid()}").open("a", buffering=1)


@cache
def slow_numbers() -> frozenset[int]:
    """Candidates that take their time."""
    budget, length = map(int, (HERE / "windows").read_text().split())
    return frozenset(number for window in windows(budget, length) for number in window)


def score(recipe: Recipe, indices: NDArray[np.int64], split: str) -> Score:
    """Random items, the same for the same recipe."""
    begun, number = time.perf_counter(), recipe.noise.number if recipe.noise is not None else -1
    random = np.random.default_rng(int(recipe.digest[:15], 16))
    items = random.random(len(indices)) < 0.5
    result = Score((("accuracy", float(items.mean())),), items, random.random(len(indices)).astype(np.float32))
    if number in slow_numbers():
        time.sleep(SECONDS - (time.perf_counter() - begun))
        log().write(f"{number} {begun} {time.perf_counter()}\n")
    return result
