"""Recipes over adapters from the outside: what is refused, what is read, what can be built on them."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Noise, Recipe
from evomerge.errors import PoolError, RecipeError
from evomerge.merge.build import Builder, Mode
from evomerge.merge.operators.port import Values, operator
from evomerge.merge.pool import ModelPool
from evomerge.merge.vectors import Room
from evomerge.merge.views.adapter import LowRank
from evomerge.settings import PoolSettings
from evomerge.testing.adapters import MEMBERS, SHAPES, Dense, FactorContract, save_adapter
from evomerge.testing.checkpoints import save_checkpoint


class Plain(FactorContract):
    """For its pools, recipes and builds; not collected, as its name does not begin with Test."""

    name = "lora_cat"

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> float:
        raise NotImplementedError


@pytest.fixture
def maker() -> FactorContract:
    return Plain()


@pytest.fixture
def pool(maker: FactorContract, tmp_path: Path) -> ModelPool:
    return maker.make_pool(tmp_path / "pool", maker.adapters(1))


ONES = (1.0, 1.0, 1.0)


def test_the_base_comes_first(maker: FactorContract, pool: ModelPool) -> None:
    recipe = maker.recipe(ONES)
    turned = replace(recipe, sources=recipe.sources[1:] + recipe.sources[:1])
    with pytest.raises(RecipeError, match=r"first source is pool:one.*pool:base first"):
        Builder(pool).resolve(turned)


def test_a_pool_without_a_base_is_refused(maker: FactorContract, pool: ModelPool, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "w.safetensors", {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()})
    bare = ModelPool.open(PoolSettings({"one": "w.safetensors", "two": "w.safetensors"}), tmp_path)
    segments = Recipe("linear", (), maker.recipe(()).segments).segments
    whole = (replace(segments[0], group="all", stop=bare.size, values=(1.0,)),)
    with pytest.raises(RecipeError, match=r"name the base as pool.base"):
        Builder(bare).resolve(Recipe("lora_cat", ("pool:one", "pool:two"), whole))


@pytest.mark.parametrize("mode", ["dense", "table"])
def test_whole_models_are_no_adapters(maker: FactorContract, pool: ModelPool, mode: Mode) -> None:
    recipe = maker.recipe(ONES)
    inner = Recipe("task_arithmetic", recipe.sources, recipe.segments)
    outer = replace(recipe, sources=(*recipe.sources[:3], f"recipe:{inner.digest}"))
    with pytest.raises(RecipeError, match=f"recipe:{inner.digest} is a whole model"):
        Builder(pool, mode).resolve(outer, [inner])
    with pytest.raises(RecipeError, match="base is no adapter"):
        Builder(pool, mode).resolve(replace(recipe, sources=(*recipe.sources[:3], "pool:base")))


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        ({"first.1.bias": (10,)}, {"bias": "all"}, r"three replaces 'first.1.bias' as a whole"),
        ({"first.0.lora_magnitude_vector": (6,)}, {"use_dora": True}, r"three rescales 'first.0.weight' \(DoRA\)"),
    ],
)
def test_what_factors_cannot_say_is_refused_by_name(
    maker: FactorContract, tmp_path: Path, tensors: dict[str, tuple[int, ...]], settings: dict[str, Any], message: str
) -> None:
    adapters = maker.adapters(1)
    maker.make_pool(tmp_path, adapters)
    one = {"first.0.weight": adapters["three"]["first.0.weight"]}
    save_adapter(tmp_path / "other", one, **settings)
    stored = {f"base_model.model.{name}": np.ones(shape, np.float32) for name, shape in tensors.items()}
    factors = {f"base_model.model.first.0.lora_{half}.weight": value for half, value in halves(one).items()}
    (tmp_path / "other" / "adapter_model.safetensors").unlink()
    save_checkpoint(tmp_path / "other" / "adapter_model.safetensors", {**factors, **stored})
    pool = pool_of(tmp_path, {"one": "one", "two": "two", "three": "other"})
    with pytest.raises(RecipeError, match=message):
        Builder(pool).resolve(maker.recipe(ONES))


def halves(modules: dict[str, Dense]) -> dict[str, Any]:
    one = modules["first.0.weight"]
    return {"A": one.A.astype(np.float32), "B": one.B.astype(np.float32)}


def pool_of(folder: Path, members: dict[str, str]) -> ModelPool:
    groups = {"first": ("first.*",), "second": ("second.*",)}
    return ModelPool.open(PoolSettings(members, base="base.safetensors", groups=groups), folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("half", ["A", "B"])
def test_numbers_that_are_none_are_refused_by_name(
    maker: FactorContract, tmp_path: Path, bad: float, half: str
) -> None:
    adapters = maker.adapters(1)
    broken = adapters["two"]["second.3.weight"]
    getattr(broken, half)[0, 0] = bad
    pool = maker.make_pool(tmp_path, adapters)
    with pytest.raises(PoolError, match=rf"two: tensor 'base_model.model.second.3.lora_{half}.weight' holds NaN"):
        maker.build(pool, maker.recipe(ONES))


def test_results_beyond_float32_are_refused_by_name(maker: FactorContract, pool: ModelPool) -> None:
    with pytest.raises(RecipeError, match=r"beyond float32 for 'first.0.weight'"):
        maker.build(pool, maker.recipe((1e39, 1.0, 1.0)))


def test_noise_comes_on_top(maker: FactorContract, pool: ModelPool) -> None:
    plain = maker.build(pool, maker.recipe(ONES))
    noisy = maker.build(pool, replace(maker.recipe(ONES), noise=Noise(0.01, 1, 2)), "auto")
    assert 0.0 < np.abs(noisy - plain).max() < 0.1


def test_a_merged_adapter_is_a_source_of_any_other_operator(maker: FactorContract, pool: ModelPool) -> None:
    inner = maker.recipe((0.5, 0.5, 0.5))
    segments = tuple(replace(segment, values=(0.25, 0.75)) for segment in inner.segments)
    outer = Recipe("linear", ("pool:base", f"recipe:{inner.digest}"), segments)
    for mode in ("dense", "table"):
        builder = Builder(pool, mode)
        vector = builder.resolve(outer, [inner])
        built = np.concatenate([values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)])
        expected = 0.25 * pool.vector("base") + 0.75 * maker.build(pool, inner)
        np.testing.assert_allclose(built, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lora_svd", "lora_lego", "rmm", "factor_fusion", "lora_linear", "lora_cat"])
def test_adapters_of_nothing_merge_to_nothing(maker: FactorContract, pool: ModelPool, name: str) -> None:
    inner = maker.recipe((0.0, 0.0, 0.0))
    kind = operator(name)
    values = tuple(1.0 for parameter in kind.parameters for _ in range(parameter.count(2)))
    outer = replace(maker.recipe(values), operator=name, sources=("pool:base", f"recipe:{inner.digest}"))
    vector = (builder := Builder(pool, "table")).resolve(outer, [inner])
    for slot in pool.layout.slots:
        built = builder.read(vector, slot, 0, slot.size)
        assert built.tobytes() == pool.checkpoints["base"].floats(slot.name).tobytes()


def test_threads_that_write_ahead_change_no_byte(maker: FactorContract, pool: ModelPool) -> None:
    recipe = replace(maker.recipe((1.0, 1.0, 1.0, 3.0, 1.0)), operator="lora_svd")
    one, several = (Builder(pool, "table", threads=threads) for threads in (1, 4))
    alone = one.resolve(recipe)
    vectors = [several.resolve(recipe), several.resolve(maker.recipe(ONES))]
    rooms = {slot.name: Room([np.empty(slot.size, np.float32) for _ in vectors], "F32") for slot in pool.layout.slots}
    several.materializer.fill_all(vectors, rooms)
    for slot in pool.layout.slots:
        assert rooms[slot.name].arrays[0].tobytes() == one.read(alone, slot, 0, slot.size).tobytes()


def test_candidates_over_one_pool_read_each_factor_once(
    maker: FactorContract, pool: ModelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = LowRank.B

    def counted(self: LowRank) -> Any:
        read.append(f"{self.file.path} {self.first}")
        return plain.fget(self)  # type: ignore[attr-defined]

    monkeypatch.setattr(LowRank, "B", property(counted))
    builder = Builder(pool, "table")
    recipes = [maker.recipe((0.1 * at, 0.5, 1.0)) for at in range(1, 5)]
    recipes += [replace(maker.recipe((0.1 * at, 0.5, 1.0, 2.0, 1.0)), operator="lora_svd") for at in range(1, 5)]
    vectors = [builder.resolve(recipe) for recipe in recipes]
    for slot in pool.layout.slots:
        for vector in vectors:
            builder.read(vector, slot, 0, slot.size)
    stored = sum(len(pool.adapter(member).modules) for member in MEMBERS)
    assert len(read) == len(set(read)) == stored


def test_threads_share_what_is_merged(maker: FactorContract, pool: ModelPool) -> None:
    builder = Builder(pool, "table")
    vector = builder.resolve(replace(maker.recipe((1.0, 1.0, 1.0, 3.0, 1.0)), operator="lora_svd"))
    alone = maker.build(pool, replace(maker.recipe((1.0, 1.0, 1.0, 3.0, 1.0)), operator="lora_svd"))
    pieces = [(slot, at) for slot in pool.layout.slots for at in range(slot.size)]
    gate = threading.Barrier(4)

    def work(first: int) -> list[np.float32]:
        gate.wait()
        return [builder.read(vector, slot, at, at + 1)[0] for slot, at in pieces[first::4]]

    with ThreadPoolExecutor(4) as threads:
        lots = list(threads.map(work, range(4)))
    for first, lot in enumerate(lots):
        assert np.array(lot, dtype=np.float32).tobytes() == alone[first::4].tobytes()
