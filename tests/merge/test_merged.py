"""What a tensor operator's result takes in memory, while it is read and after."""

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import Recipe, Segment
from evomerge.merge.bind import Target
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.merge.stream import Stream
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

SIDE = 128
TENSORS = 4
SIZE = TENSORS * SIDE * SIDE

OPERATORS = {
    "wudi": lambda weight: (300.0, 1.0, weight),
    "ties": lambda weight: (weight, 1.0, 0.3, 0.3, 1.0),
    "pcb": lambda weight: (weight, 1.0, 0.2, 0.2),
}


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    draw = np.random.default_rng(3)
    base = draw.standard_normal((TENSORS, SIDE, SIDE)).astype(np.float32)
    members = {}
    for name in ("base", "a", "b"):
        values = base + (0.0 if name == "base" else 0.1) * draw.standard_normal(base.shape).astype(np.float32)
        tensors = {f"layers.{layer}.w": value for layer, value in enumerate(values)}
        members[name] = str(save_checkpoint(tmp_path / f"{name}.safetensors", tensors))
    return ModelPool.open(PoolSettings(members, base=members["base"]), tmp_path)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def recipe(operator: str, weight: float) -> Recipe:
    segments = (Segment("all", 0, SIZE, OPERATORS[operator](weight)),)
    return Recipe(operator, ("pool:base", "pool:a", "pool:b"), segments)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("operator", OPERATORS)
def test_what_the_cache_counts_is_what_written_candidates_hold(
    pool: ModelPool, tmp_path: Path, operator: str, threads: int
) -> None:
    builder = Builder(pool, "table", 1 << 20, tmp_path / "cache", threads)
    out = Target({}, {slot.name: (np.empty(slot.size, np.float32), "F32") for slot in pool.layout.slots})
    vectors = []
    for number in range(24):
        if number == 4:  # kernels are compiled, files are open
            before = held()
        vectors.append(builder.resolve(recipe(operator, 0.5 + number / 64)))
        builder.write(vectors[-1], out)
    counted = sum(vector.nbytes for vector in vectors[4:] if isinstance(vector, Stream))
    assert held() - before <= counted < 20 * SIDE * SIDE * 4


def test_what_was_forgotten_is_found_again(pool: ModelPool) -> None:
    builder = Builder(pool, "table")
    for operator in OPERATORS:
        vector = builder.resolve(recipe(operator, 0.75))
        assert isinstance(vector, Stream)
        (slot, *_) = pool.layout.slots
        once = vector.read(slot, 0, slot.size).tobytes()
        vector.forget()
        assert vector.read(slot, 0, slot.size).tobytes() == once
