"""What an accelerator makes is what the processor makes, to rounding: here on torch's "cpu", and on a real one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.merge import materialize
from evomerge.merge.bind import Target
from evomerge.merge.build import Builder, Mode
from evomerge.merge.device import Device
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import STORED, from_float32, to_float32
from evomerge.merge.writer import Planned, write_file
from evomerge.settings import PoolSettings

SHAPES = {"a.0.weight": (30, 40), "a.1.bias": (7,), "b.0.weight": (1, 1), "b.1.weight": (20, 50)}
SIZES = {"a": 1207, "b": 1001}
DTYPES = {"a.0.weight": "BF16", "a.1.bias": "F32", "b.0.weight": "F64", "b.1.weight": "F16"}
MEMBERS = ("x", "y", "z")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no accelerator here")
    return str(request.param)


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    draw = np.random.default_rng(0)
    base = {name: draw.standard_normal(shape) for name, shape in SHAPES.items()}
    planned = sorted(
        (Planned(name, dtype, SHAPES[name]) for name, dtype in DTYPES.items()),
        key=lambda plan: -STORED[plan.dtype].itemsize,
    )
    for member in MEMBERS:
        moved = {name: value + 0.1 * draw.standard_normal(value.shape) for name, value in base.items()}

        def pieces(plan: Planned, moved: dict[str, Any] = moved) -> Iterator[Any]:
            values = moved[plan.name].reshape(-1)
            yield values if plan.dtype == "F64" else from_float32(values.astype(np.float32), plan.dtype)

        write_file(tmp_path / f"{member}.safetensors", planned, pieces)
    groups = {"a": ("a.*",), "b": ("b.*",)}
    return ModelPool.open(PoolSettings({name: f"{name}.safetensors" for name in MEMBERS}, groups=groups), tmp_path)


def recipe(name: str, *values: float, sources: int = 3, noise: Noise | None = None, factor: float = 0.5) -> Recipe:
    """Values times a factor on the second half of the first group."""
    others = tuple(factor * value for value in values)
    segments = (
        Segment("a", 0, 611, values),
        Segment("a", 611, SIZES["a"], others),
        Segment("b", 0, SIZES["b"], values),
    )
    names = tuple(f"pool:{name}" for name in MEMBERS[:sources])
    return Recipe(name, names, segments, (), noise)


def default(name: str) -> Recipe:
    """Three models by an operator with its defaults."""
    merge = operator(name)
    return recipe(name, *(one.default for one in merge.parameters for _ in range(one.count(3))), factor=1.0)


LINEAR = recipe("linear", 0.5, 0.3, 0.0)
NEAR = recipe("nearswap", 0.05, sources=2)
RECIPES = {
    "table": LINEAR,
    "slerp": recipe("slerp", 0.4, sources=2),
    "noise": recipe("linear", 0.2, 0.3, 0.5, noise=Noise(0.1, 1, 2)),
    "elements": NEAR,
    "random": default("dare_linear"),
    "rows": default("model_stock_rows"),
    "ranks": default("della"),
    "matrices": default("tsv_m"),
    "sequence": default("opcm"),
    "nested": Recipe("linear", (f"recipe:{NEAR.digest}", "pool:z"), recipe("linear", 0.6, 0.4).segments),
    "noisy": recipe("nearswap", 0.05, sources=2, noise=Noise(0.1, 1, 2)),
}


def on(pool: ModelPool, place: str) -> Target:
    """A model of bfloat16 that is no memory of the processor's, as far as anybody knows."""
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    return Target({name: torch.zeros(size, dtype=torch.float32, device=place) for name, size in sizes.items()}, {})


def built(pool: ModelPool, one: Recipe, place: str, threads: int = 1, mode: Mode = "auto") -> dict[str, Any]:
    builder = Builder(pool, mode, cache_bytes=1, threads=threads)
    target = on(pool, place)
    builder.write(builder.resolve(one, (NEAR,)), target)
    return {name: tensor.cpu().numpy() for name, tensor in target.tensors.items()}


def expected(pool: ModelPool, one: Recipe, mode: Mode = "auto") -> dict[str, Any]:
    builder = Builder(pool, mode, cache_bytes=1)
    vector = builder.resolve(one, (NEAR,))
    return {slot.name: builder.read(vector, slot, 0, slot.size) for slot in pool.layout.slots}


@pytest.mark.parametrize("which", RECIPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_kind_of_recipe_is_built_there(pool: ModelPool, place: str, which: str, threads: int) -> None:
    found = built(pool, RECIPES[which], place, threads)
    for name, values in expected(pool, RECIPES[which]).items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6)


def test_dense_vectors_are_sent(pool: ModelPool, place: str) -> None:
    found = built(pool, LINEAR, place, mode="dense")
    for name, values in expected(pool, LINEAR, "dense").items():
        assert found[name].tobytes() == values.tobytes()


@pytest.mark.parametrize("which", RECIPES)
def test_how_tensors_are_cut_changes_rounding_only(
    pool: ModelPool, place: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = built(pool, RECIPES[which], place)
    monkeypatch.setattr(materialize, "_SENT", 100)
    monkeypatch.setattr("evomerge.merge.pieces.CHUNK", 90)
    monkeypatch.setattr("evomerge.merge.table.CHUNK", 90)
    monkeypatch.setattr("evomerge.merge.stream.CHUNK", 90)
    for name, values in built(pool, RECIPES[which], place).items():
        np.testing.assert_allclose(values, at_once[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_parent_is_written_bit_for_bit(pool: ModelPool, place: str, member: int) -> None:
    one = recipe("linear", *(float(member == at) for at in range(3)))
    one = Recipe(
        one.operator,
        one.sources,
        tuple(Segment(s.group, s.start, s.stop, one.segments[0].values) for s in one.segments),
    )
    builder = Builder(pool, "table")
    kinds = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F16": torch.float16}
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    target = Target(
        {name: torch.zeros(size, dtype=kinds[DTYPES[name]], device=place) for name, size in sizes.items()}, {}
    )
    builder.write(builder.resolve(one), target)
    source = pool.checkpoints[MEMBERS[member]]
    for name, tensor in target.tensors.items():
        assert tensor.view(torch.uint8).cpu().numpy().tobytes() == source.stored(name).tobytes()


class TestDevice:
    def bytes_of(self, pool: ModelPool, *names: str) -> int:
        return sum(entry.stop - entry.start for entry in (pool.checkpoints["x"].entries[name] for name in names))

    @pytest.mark.parametrize("budget", [0, 10**9])
    @pytest.mark.parametrize("name", SHAPES)
    def test_reads_what_is_stored(self, pool: ModelPool, place: str, budget: int, name: str) -> None:
        source = pool.checkpoints["x"]
        device = Device(place, budget)
        size = source.entries[name].size
        for start, stop in ((0, size), (size // 2, size), (0, 1)):
            found = device.floats(source, name, start, stop)
            assert found.cpu().numpy().tobytes() == source.floats(name, start, stop).tobytes()

    def test_keeps_as_much_as_there_is_room_for(
        self, pool: ModelPool, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = pool.checkpoints["x"]
        device = Device(place, self.bytes_of(pool, "a.0.weight", "a.1.bias"))
        for _ in range(3):
            for name in SHAPES:
                device.floats(source, name, 0, 1)
        stored = type(source).stored
        asked: list[str] = []

        def told(self: Any, name: str, start: int = 0, stop: int | None = None) -> Any:
            asked.append(name)
            return stored(self, name, start, stop)

        monkeypatch.setattr(type(source), "stored", told)
        for name in SHAPES:
            device.floats(source, name, 0, 1)
        assert asked == ["b.0.weight", "b.1.weight"]

    @pytest.mark.parametrize("budget", [0, 10**9])
    def test_what_is_read_may_be_overwritten(self, pool: ModelPool, place: str, budget: int) -> None:
        device = Device(place, budget)
        for name in SHAPES:
            device.floats(pool.checkpoints["x"], name, 0, 1).fill_(7.0)
            assert device.floats(pool.checkpoints["x"], name, 0, 1).item() != 7.0

    @pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
    def test_reads_eight_bits(self, tmp_path: Path, place: str, dtype: str) -> None:
        codes = np.arange(256, dtype=np.uint8)
        write_file(tmp_path / "x.safetensors", [Planned("w", dtype, (256,))], lambda plan: [codes])
        pool = ModelPool.open(PoolSettings({"x": "x.safetensors"}), tmp_path)
        found = Device(place, 0).floats(pool.checkpoints["x"], "w", 0, 256).cpu().numpy()
        np.testing.assert_array_equal(found, to_float32(codes, dtype))
