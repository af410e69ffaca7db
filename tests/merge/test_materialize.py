"""Live models get the same bytes by any number of threads, alone or together, whatever holds the recipe."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.merge import materialize
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder, Mode
from evomerge.merge.layout import Slot
from evomerge.merge.materialize import Materializer
from evomerge.merge.pool import ModelPool
from evomerge.merge.stream import Stream
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

SHAPES = {"a.weight": (50, 40), "b.bias": (3,), "b.weight": (70, 30), "c.weight": (1, 1)}
SIZE = 4104
MEMBERS = ("x", "y", "z")


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            module, kind = name.split(".")
            if module not in self._modules:
                self.add_module(module, nn.Module())
            self.get_submodule(module).register_parameter(kind, nn.Parameter(torch.zeros(shape, dtype=dtype)))

    def bytes(self) -> list[bytes]:
        return [tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() for tensor in self.parameters()]


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    draw = np.random.default_rng(0)
    for name in MEMBERS:
        tensors = {tensor: draw.standard_normal(shape).astype(np.float32) for tensor, shape in SHAPES.items()}
        tensors["b.weight"] = tensors["b.weight"].astype(np.float16)
        save_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    return ModelPool.open(PoolSettings({name: f"{name}.safetensors" for name in MEMBERS}), tmp_path)


@pytest.fixture(autouse=True)
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "SPAN", 500)


def recipe(operator: str, *cuts: tuple[int, tuple[float, ...]], count: int = 3, noise: Noise | None = None) -> Recipe:
    ends = [cut for cut, _ in cuts[1:]] + [SIZE]
    segments = tuple(Segment("all", start, stop, values) for (start, values), stop in zip(cuts, ends, strict=True))
    return Recipe(operator, tuple(f"pool:{name}" for name in MEMBERS[:count]), segments, (), noise)


RECIPES = {
    "table": recipe("linear", (0, (0.5, 0.3, 0.2)), (777, (0.0, 1.0, 0.0)), (2000, (1.0, -1.0, 0.5))),
    "parent": recipe("linear", (0, (0.0, 0.0, 1.0))),
    "stream": recipe("nearswap", (0, (1e-2,)), (3000, (1e-3,)), count=2),
    "noisy": recipe("linear", (0, (0.5, 0.25, 0.25)), noise=Noise(0.1, 3, 4)),
}


def written(pool: ModelPool, recipes: Sequence[Recipe], dtype: torch.dtype, threads: int, mode: Mode) -> list[Any]:
    builder = Builder(pool, mode, cache_bytes=1, threads=threads)
    nets = [Net(dtype) for _ in recipes]
    targets = [bind(net, pool) for net in nets]
    builder.write_many([builder.resolve(one) for one in recipes], targets)
    return [net.bytes() for net in nets]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", ["auto", "dense"])
def test_threads_and_company_change_no_byte(pool: ModelPool, dtype: torch.dtype, mode: Mode) -> None:
    alone = [written(pool, [one], dtype, 1, mode)[0] for one in RECIPES.values()]
    for threads in (1, 2, 5):
        assert written(pool, list(RECIPES.values()), dtype, threads, mode) == alone


@pytest.mark.parametrize("span", [1, 64, 10_000])
def test_the_size_of_a_piece_of_work_changes_no_byte(
    pool: ModelPool, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(pool, list(RECIPES.values()), torch.bfloat16, 2, "auto")
    monkeypatch.setattr(materialize, "SPAN", span)
    assert written(pool, list(RECIPES.values()), torch.bfloat16, 2, "auto") == before


def test_large_models_are_written_past_the_caches_all_the_same(
    pool: ModelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(pool, list(RECIPES.values()), torch.bfloat16, 1, "auto")
    monkeypatch.setattr(materialize, "_CACHED", 0)
    assert written(pool, list(RECIPES.values()), torch.bfloat16, 1, "auto") == before


def test_models_of_several_dtypes_are_written_each_in_its_own(pool: ModelPool) -> None:
    builder = Builder(pool, "table", threads=2)
    vector = builder.resolve(RECIPES["table"])
    kinds = (torch.bfloat16, torch.float32, torch.float8_e5m2)
    together, alone = [Net(kind) for kind in kinds], [Net(kind) for kind in kinds]
    builder.write_many([vector] * 3, [bind(net, pool) for net in together])
    for net in alone:
        builder.write(vector, bind(net, pool))
    assert [net.bytes() for net in together] == [net.bytes() for net in alone]
    assert len({hashlib.sha256(b"".join(net.bytes())).digest() for net in together}) == 3


def test_densifying_by_threads_changes_no_byte(pool: ModelPool) -> None:
    child = Recipe("linear", (f"recipe:{RECIPES['stream'].digest}",), (Segment("all", 0, SIZE, (1.0,)),))
    made = [Builder(pool, "dense", threads=threads).resolve(child, [RECIPES["stream"]]) for threads in (1, 4)]
    one, four = (vector.values.tobytes() for vector in made)  # type: ignore[union-attr]
    assert one == four


class Told(Stream):
    """A stream that tells what it is asked."""

    key = "told"

    def __init__(self) -> None:
        self.prepared: list[str] = []

    def read(self, slot: Slot, start: int, stop: int) -> NDArray[np.float32]:
        raise NotImplementedError

    def prepare(self, slot: Slot) -> None:
        self.prepared.append(slot.name)


class Lot:
    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = slots


def maker(threads: int) -> Materializer:
    return Materializer(lambda vector: pytest.fail("nothing is written here"), [], threads)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=12), st.integers(2, 4))
def test_tensors_are_prepared_a_little_before_they_are_used(steps: list[list[int]], threads: int) -> None:
    at, lots = 0, []
    for lot in steps:  # a step of 0 is the same tensor again, as of one that several pieces of work share
        numbers = [at := at + step for step in lot]
        lots.append(Lot([Slot(str(number), (1,), 1, "all", number) for number in numbers]))
    told, used = Told(), set[str]()
    for task in maker(threads).tasks([told], lots, lambda lot: lot):
        lot = task()
        if lot is not None:
            used |= {slot.name for slot in lot.slots}
            assert used <= set(told.prepared)
            assert len(set(told.prepared) - used) <= threads
    assert len(told.prepared) == len(set(told.prepared))
    assert set(told.prepared) == used


def test_one_thread_prepares_nothing_ahead() -> None:
    told = Told()
    assert [task() for task in maker(1).tasks([told], [Lot([])], lambda lot: "done")] == ["done"]
    assert not told.prepared
