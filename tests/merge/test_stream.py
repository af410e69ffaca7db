"""Recipes that mix kinds of operators: what a tensor operator makes is a source like any other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.merge.build import Builder, Mode
from evomerge.merge.pool import ModelPool
from evomerge.merge.stream import Stream
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

SIZE = 70_000
MODES: tuple[Mode, ...] = ("table", "dense")
Attach = Callable[[Path, int], dict[str, dict[str, str | float]]]


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    draw = np.random.default_rng(3)
    base = draw.standard_normal(SIZE).astype(np.float32)
    for name in ("a", "b"):
        values = base + 1e-3 * draw.standard_normal(SIZE).astype(np.float32)
        tensors = {"layers.0.w": values[:69_000].reshape(300, 230), "layers.1.w": values[69_000:]}
        save_checkpoint(tmp_path / f"{name}.safetensors", tensors)
    return ModelPool.open(PoolSettings({name: f"{name}.safetensors" for name in ("a", "b")}), tmp_path)


def recipe(operator: str, sources: tuple[str, ...], *values: float, noise: Noise | None = None) -> Recipe:
    return Recipe(operator, sources, (Segment("all", 0, SIZE, values),), noise=noise)


def build(pool: ModelPool, mode: Mode, *line: Recipe) -> NDArray[np.float32]:
    builder = Builder(pool, mode)
    vector = builder.resolve(line[-1], line[:-1])
    return np.concatenate([values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)])


NEAR = recipe("nearswap", ("pool:a", "pool:b"), 1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_a_weighted_sum_takes_what_a_tensor_operator_made(pool: ModelPool, mode: Mode) -> None:
    mixed = recipe("linear", (f"recipe:{NEAR.digest}", "pool:a"), 0.25, 0.75)
    expected = 0.25 * build(pool, mode, NEAR) + 0.75 * pool.vector("a")
    np.testing.assert_allclose(build(pool, mode, NEAR, mixed), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_slerp_finds_the_angle_between_streams(pool: ModelPool, mode: Mode) -> None:
    child = recipe("slerp", (f"recipe:{NEAR.digest}", "pool:b"), 0.3)
    one, two = build(pool, mode, NEAR).astype(np.float64), pool.vector("b").astype(np.float64)
    omega = np.arccos(one @ two / np.sqrt((one @ one) * (two @ two)))
    expected = (np.sin(0.7 * omega) * one + np.sin(0.3 * omega) * two) / np.sin(omega)
    np.testing.assert_allclose(build(pool, mode, NEAR, child), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_tensor_operators_nest(pool: ModelPool, mode: Mode) -> None:
    half = recipe("linear", ("pool:a", "pool:b"), 0.5, 0.5)
    outer = recipe("nearswap", (f"recipe:{half.digest}", f"recipe:{NEAR.digest}"), 2e-4)
    base, other = build(pool, mode, half), build(pool, mode, NEAR)
    c = np.minimum(2e-4 / np.maximum(np.abs(other - base), 1e-30), 1.0)
    expected = c * other + (1 - c) * base
    np.testing.assert_allclose(build(pool, mode, half, NEAR, outer), expected, rtol=1e-5, atol=1e-6)


def test_noise_on_a_tensor_operator_is_the_noise_of_the_recipe(pool: ModelPool) -> None:
    noisy = recipe("nearswap", ("pool:a", "pool:b"), 1e-3, noise=Noise(0.1, 5, 6))
    still, moved = build(pool, "table", NEAR), build(pool, "table", noisy)
    silence = recipe("linear", (), noise=Noise(0.1, 5, 6))
    np.testing.assert_allclose(moved - still, build(pool, "auto", silence), atol=1e-6)


def test_a_tensor_operator_holds_no_model(pool: ModelPool) -> None:
    assert isinstance(Builder(pool, "table").resolve(NEAR), Stream)


def test_statistics_kept_by_another_pool_change_no_byte(tmp_path: Path) -> None:
    """The same names and recipes, and the same cache, over other weights of a member that only an ancestor sees."""
    for folder, scale in (("one", 1.0), ("two", 3.0)):
        for name in ("a", "b", "c"):
            values = np.random.default_rng(ord(name)).standard_normal((40, 30)) * (scale if name == "b" else 1.0)
            save_checkpoint(tmp_path / folder / f"{name}.safetensors", {"w": values.astype(np.float32)})
    members = {name: f"{name}.safetensors" for name in ("a", "b", "c")}
    pools = [ModelPool.open(PoolSettings(members), tmp_path / folder) for folder in ("one", "two")]
    inner = Recipe("task_arithmetic", ("pool:a", "pool:b"), (Segment("all", 0, 1200, (0.7,)),))
    trimmed = Segment("all", 0, 1200, (1.0, 1.0, 0.3, 0.3, 1.0))
    outer = Recipe("ties", ("pool:a", f"recipe:{inner.digest}", "pool:c"), (trimmed,))
    for pool in pools:
        builder = Builder(pool, "table", gram_cache=tmp_path / "cache")
        cached = builder.read(builder.resolve(outer, [inner]), pool.layout.slots[0], 0, 1200)
        assert build(pool, "table", inner, outer).tobytes() == cached.tobytes()


def fisher(folder: Path, power: int) -> dict[str, dict[str, str | float]]:
    information = np.random.default_rng(5).random((40, 30)).astype(np.float32) ** power
    return {
        "a": {"fisher": str(save_checkpoint(folder / f"{power}.safetensors", {"w": information}))},
        "b": {"fisher": str(save_checkpoint(folder / f"{power}b.safetensors", {"w": information[::-1]}))},
    }


def losses(folder: Path, power: int) -> dict[str, dict[str, str | float]]:
    return {"a": {"loss": 1.0}, "b": {"loss": float(power)}}


@pytest.mark.parametrize(
    ("operator", "values", "statistics"),
    [("fisher", (1.0, 1.0, 1e-9), fisher), ("metrics_weighted", (1.0, 0.0), losses)],
    ids=["file", "number"],
)
def test_statistics_kept_by_a_pool_with_other_attachments_change_no_byte(
    tmp_path: Path, operator: str, values: tuple[float, ...], statistics: Attach
) -> None:
    members = {}
    for name in ("a", "b", "c"):
        drawn = np.random.default_rng(ord(name)).standard_normal((40, 30)).astype(np.float32)
        members[name] = str(save_checkpoint(tmp_path / f"{name}.safetensors", {"w": drawn}))
    pools = [
        ModelPool.open(PoolSettings(members, statistics=statistics(tmp_path, power)), tmp_path) for power in (2, 6)
    ]
    inner = Recipe(operator, ("pool:a", "pool:b"), (Segment("all", 0, 1200, values),))
    trimmed = Segment("all", 0, 1200, (1.0, 1.0, 0.3, 0.3, 1.0))
    outer = Recipe("ties", ("pool:a", f"recipe:{inner.digest}", "pool:c"), (trimmed,))
    results = []
    for pool in pools:
        builder = Builder(pool, "table", gram_cache=tmp_path / "cache")
        cached = builder.read(builder.resolve(outer, [inner]), pool.layout.slots[0], 0, 1200)
        assert build(pool, "table", inner, outer).tobytes() == cached.tobytes()
        results.append(cached)
    assert not np.array_equal(*results)
