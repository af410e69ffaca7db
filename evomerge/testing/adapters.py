"""What every operator on adapters must hold; inherit `FactorContract` and say which operator and what it means.

The meaning is written once more in ``direct``, plainly, on one tensor's float64 factors; every way to build a recipe
and every cut of the work must agree with it::

    class TestMine(FactorContract):
        name = "package.module:Mine"

        def direct(self, adapters, values):
            return sum(one.scale * one.B @ one.A for one in adapters if one is not None)
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge import source, stream
from evomerge.merge.adapters.merged import MergedAdapter
from evomerge.merge.build import Builder, Mode
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint
from evomerge.testing.declaration import DeclarationContract

SHAPES: dict[str, tuple[int, ...]] = {
    "first.0.weight": (6, 10),
    "first.1.bias": (10,),
    "first.1.weight": (1, 10),
    "second.2.weight": (4, 1),
    "second.3.weight": (5, 4),
    "second.4.weight": (5, 4),
}
SIZES = {"first": 80, "second": 44}
MEMBERS = ("one", "two", "three")
EQUAL = dict.fromkeys(MEMBERS, 3)
UNEQUAL = {"one": 2, "two": 4, "three": 1}


class Dense(NamedTuple):
    """An adapter's factors of one tensor in float64: ``scale * B @ A``."""

    B: NDArray[np.float64]
    A: NDArray[np.float64]
    scale: float


Adapters = dict[str, dict[str, Dense]]
"""By member, then by tensor."""


class FactorContract(DeclarationContract):
    """Inherit, set ``name`` (and ``options``, ``ranks``), and write ``direct``."""

    sources: ClassVar[int] = 4
    """The base and three adapters."""
    ranks: ClassVar[Mapping[str, int]] = UNEQUAL
    """Of each adapter; set `EQUAL` where the operator needs them equal."""
    tolerance: ClassVar[float] = 1e-5
    """Largest relative difference from ``direct``."""

    @abstractmethod
    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        """What is added to one tensor (out x in), slow and plain. ``None`` for an adapter that leaves it alone."""

    @pytest.fixture
    def pool(self, tmp_path: Path) -> ModelPool:
        return self.make_pool(tmp_path / "pool", self.adapters(1))

    def adapters(self, seed: int) -> Adapters:
        """Some of this operator's ``ranks``."""
        return random_adapters(self.ranks, seed)

    def make_pool(self, folder: Path, adapters: Adapters, **settings: Any) -> ModelPool:
        """A base of random weights, and adapters over it."""
        return make_pool(folder, adapters, **settings)

    def recipe(self, values: tuple[float, ...], members: Sequence[str] = MEMBERS) -> Recipe:
        """The same values on every segment."""
        segments = tuple(Segment(group, 0, size, values) for group, size in SIZES.items())
        return Recipe(self.name, ("pool:base", *(f"pool:{member}" for member in members)), segments, self.options)

    def build(self, pool: ModelPool, recipe: Recipe, mode: Mode = "table", cache: Path | None = None) -> NDArray[Any]:
        """The recipe's flat float32 vector."""
        builder = Builder(pool, mode, gram_cache=cache)
        vector = builder.resolve(recipe)
        return np.concatenate([values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)])

    def expected(self, adapters: Adapters, base: NDArray[Any], flat: tuple[float, ...]) -> NDArray[np.float64]:
        """``direct`` on every tensor, added to the base's flat vector."""
        values = self.operator().values(flat, self.sources)
        parts, at = [], 0
        for name, shape in SHAPES.items():
            part = base[at : at + math.prod(shape)].astype(np.float64)
            at += math.prod(shape)
            modules = [adapters[member].get(name) for member in MEMBERS]
            if any(one is not None for one in modules):
                part = part + np.broadcast_to(self.direct(modules, values), shape).ravel()
            parts.append(part)
        return np.concatenate(parts)

    def test_refuses_a_wrong_number_of_values(self, pool: ModelPool) -> None:
        with pytest.raises(RecipeError, match="values"):
            self.build(pool, self.recipe((*self.values(), 0.5)))

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_agrees_with_the_plain_computation(self, pool: ModelPool, mode: Mode) -> None:
        adapters = {member: stored(pool, member) for member in MEMBERS}
        for seed in range(10):
            built = self.build(pool, self.recipe(self.values(seed)), mode)
            expected = self.expected(adapters, pool.vector("base"), self.values(seed))
            np.testing.assert_allclose(built, expected, rtol=self.tolerance, atol=self.tolerance)

    def test_its_factors_are_what_it_adds(self, pool: ModelPool) -> None:
        vector = Builder(pool, "table").resolve(self.recipe(self.values()))
        assert isinstance(vector, MergedAdapter)
        added = self.build(pool, self.recipe(self.values())) - pool.vector("base")
        for slot in pool.layout.slots:
            factors, at = vector.factors(slot), pool.layout.starts[slot.group] + slot.offset
            shown = np.zeros(slot.size) if factors is None else factors.values(0, slot.size)
            np.testing.assert_allclose(added[at : at + slot.size], shown, rtol=1e-4, atol=1e-5)

    def test_equal_digests_build_equal_bytes(self, pool: ModelPool) -> None:
        once, again = (self.build(pool, self.recipe(self.values())) for _ in range(2))
        assert once.tobytes() == again.tobytes()

    def test_what_is_kept_on_disk_changes_no_byte(self, pool: ModelPool, tmp_path: Path) -> None:
        plain = self.build(pool, self.recipe(self.values()))
        first, second = (self.build(pool, self.recipe(self.values()), "table", tmp_path / "cache") for _ in range(2))
        assert plain.tobytes() == first.tobytes() == second.tobytes()

    def test_chunk_size_changes_no_byte(self, pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
        at_once = self.build(pool, self.recipe(self.values()))
        for module in (source, stream):
            monkeypatch.setattr(module, "CHUNK", 7)
        assert self.build(pool, self.recipe(self.values())).tobytes() == at_once.tobytes()

    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads_of_others_change_no_byte(self, pool: ModelPool, threads: int) -> None:
        plain = self.build(pool, self.recipe(self.values()))
        with threadpool_limits(threads):
            assert self.build(pool, self.recipe(self.values())).tobytes() == plain.tobytes()

    def test_load_order_of_members_changes_no_byte(self, tmp_path: Path) -> None:
        pool = self.make_pool(tmp_path / "a", self.adapters(2))
        turned = self.make_pool(tmp_path / "b", self.adapters(2), order_of_members=MEMBERS[::-1])
        recipe = self.recipe(self.values())
        assert self.build(pool, recipe).tobytes() == self.build(turned, recipe).tobytes()

    def test_order_of_adapters_changes_rounding_only(self, pool: ModelPool) -> None:
        merge = self.operator()
        values = merge.values(self.values(), self.sources)
        turned: list[float] = []
        for parameter in merge.parameters:
            each = values.each(parameter.name)
            turned += each[::-1] if parameter.per == "expert" else each
        one = self.build(pool, self.recipe(self.values()))
        other = self.build(pool, self.recipe(tuple(turned), MEMBERS[::-1]))
        np.testing.assert_allclose(one, other, rtol=self.tolerance, atol=self.tolerance)

    def test_segments_do_not_see_one_another(self, pool: ModelPool) -> None:
        one, two, cut = self.values(1), self.values(2), 33
        segments = (Segment("first", 0, cut, one), Segment("first", cut, 80, two), Segment("second", 0, 44, two))
        built = self.build(pool, replace(self.recipe(one), segments=segments))
        left, right = (self.build(pool, self.recipe(values)) for values in (one, two))
        assert built.tobytes() == np.concatenate([left[:cut], right[cut:]]).tobytes()

    def test_an_earlier_merge_is_an_adapter_again(self, pool: ModelPool) -> None:
        inner = Recipe("lora_cat", self.recipe(()).sources[:2], self.recipe((1.0,)).segments)
        plain = self.recipe(self.values())
        nested = replace(plain, sources=("pool:base", f"recipe:{inner.digest}", *plain.sources[2:]))
        vector = (builder := Builder(pool, "table")).resolve(nested, [inner])
        built = np.concatenate([values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)])
        np.testing.assert_allclose(built, self.build(pool, plain), rtol=1e-6, atol=1e-6)

    def test_excluded_tensors_are_copied(self, tmp_path: Path) -> None:
        pool = self.make_pool(tmp_path, self.adapters(3), groups={"first": ("first.*",)}, exclude=("second.*",))
        recipe = self.recipe(self.values())
        assert self.build(pool, replace(recipe, segments=recipe.segments[:1])).shape == (80,)

    @pytest.mark.parametrize("case", ["zero", "one zero", "equal", "opposite", "tiny"])
    def test_degenerate_adapters_give_finite_models(self, tmp_path: Path, case: str) -> None:
        adapters = self.adapters(4)
        factor = {"zero": (0.0, 0.0), "one zero": (0.0, 1.0), "tiny": (1e-30, 1e-30)}.get(case, (1.0, 1.0))
        for at, member in enumerate(MEMBERS):
            source = "two" if case in ("equal", "opposite") else member
            sign = -1.0 if case == "opposite" and at == 1 else 1.0
            adapters[member] = {
                name: one._replace(A=one.A * factor[min(at, 1)] * sign) for name, one in adapters[source].items()
            }
        pool = self.make_pool(tmp_path / "pool", adapters)
        assert np.isfinite(self.build(pool, self.recipe(self.values()))).all()


def random_adapters(ranks: Mapping[str, int], seed: int) -> Adapters:
    """Three of different scales; each leaves a tensor alone that others change, and one tensor none changes."""
    draw = np.random.default_rng(seed)
    found: Adapters = {}
    for member, scale, alone in zip(MEMBERS, (1.0, 0.5, 2.0), ("first.1", "second.2", "second.3"), strict=True):
        found[member] = {
            name: Dense(
                draw.standard_normal((shape[0], ranks[member])), draw.standard_normal((ranks[member], shape[1])), scale
            )
            for name, shape in SHAPES.items()
            if len(shape) == 2 and not name.startswith((alone, "second.4"))
        }
    return found


def make_pool(folder: Path, adapters: Adapters, **settings: Any) -> ModelPool:
    """A base of random weights, and adapters over it; ``order_of_members`` and keywords are pool settings."""
    draw = np.random.default_rng(0)
    base = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    save_checkpoint(folder / "base.safetensors", base)
    for member, modules in adapters.items():
        save_adapter(folder / member, modules)
    members = {member: member for member in settings.pop("order_of_members", adapters)}
    defaults: dict[str, Any] = {"base": "base.safetensors", "groups": {one: (f"{one}.*",) for one in SIZES}}
    return ModelPool.open(PoolSettings(members=members, **(defaults | settings)), folder)


def save_adapter(folder: Path, modules: Mapping[str, Dense], **settings: Any) -> Path:
    """Write a PEFT folder of these factors; each module has its own rank and alpha."""
    tensors: dict[str, NDArray[Any]] = {}
    patterns: dict[str, dict[str, float]] = {"rank_pattern": {}, "alpha_pattern": {}}
    for name, one in modules.items():
        module = name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.lora_A.weight"] = one.A.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = one.B.astype(np.float32)
        patterns["rank_pattern"][f"^{module}"] = len(one.A)
        patterns["alpha_pattern"][f"^{module}"] = one.scale * len(one.A)
    save_checkpoint(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "init_lora_weights": True, **patterns, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def stored(pool: ModelPool, member: str) -> dict[str, Dense]:
    """An adapter's factors as its file holds them."""
    modules = pool.adapter(member).modules
    return {name: Dense(one.B.astype(np.float64), one.A.astype(np.float64), one.scale) for name, one in modules.items()}
