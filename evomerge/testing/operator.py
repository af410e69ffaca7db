"""What every operator must hold; inherit `OperatorContract` and say which operator and what it means.

The meaning is written once more in ``direct``, plainly, on whole float64 tensors; every way to build a recipe and every
cut of the work must agree with it::

    class TestMine(OperatorContract):
        name = "package.module:Mine"

        def direct(self, theta, values):
            return {name: mine(tensor, values.one("t")) for name, tensor in theta.items()}
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge import pieces, source, stream, table
from evomerge.merge.build import Builder, Mode
from evomerge.merge.operators.port import LinearOperator, Scope, Values
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint
from evomerge.testing.declaration import DeclarationContract

Whole = Mapping[str, NDArray[np.float64]]
SHAPES: dict[str, tuple[int, ...]] = {
    "first.0.weight": (6, 10),
    "first.1.bias": (10,),
    "first.1.weight": (1, 10),
    "second.2.column": (4, 1),
    "second.2.one": (1,),
    "second.2.weight": (5, 4),
}
SIZES = {"first": 80, "second": 25}
SIZE = 105
MEMBERS = ("one", "two", "three")


class OperatorContract(DeclarationContract):
    """Inherit, set ``name`` (and ``options``, ``sources``), and write ``direct``."""

    sources: ClassVar[int] = 3
    """How many of the three pool members the recipes here merge; the first is the base if the operator has one."""
    tolerance: ClassVar[float] = 1e-5
    """Largest relative difference from ``direct``."""
    idempotent: ClassVar[bool] = True
    """Whether equal sources give that model, for the values of `equal_values`."""
    homogeneous: ClassVar[bool] = True
    """Whether, with a base, scaling all differences from it scales the result's."""
    statistics: ClassVar[Mapping[str, float]] = {}
    """Numbers that the pool keeps beside each member, the same for all (override `make_pool` for others)."""

    @abstractmethod
    def direct(self, theta: Whole, values: Values) -> Whole:
        """The operator on whole tensors, (sources, *shape) each, with the same values everywhere: slow, plain."""

    def equal_values(self) -> tuple[float, ...]:
        """Values with which equal sources give themselves; by default weights that sum to one, and 1 elsewhere."""
        merge = self.operator()
        flat: list[float] = []
        for parameter in merge.parameters:
            count = parameter.count(self.sources)
            flat += [1.0] if parameter.per == "segment" else [1.0 / count] * count
        return tuple(flat)

    @pytest.fixture
    def pool(self, tmp_path: Path) -> ModelPool:
        return self.make_pool(tmp_path / "pool", self.vectors(5))

    def vectors(self, seed: int) -> NDArray[np.float64]:
        """Three random models as flat vectors: a base of size 1, and differences from it of size 0.3."""
        drawn = np.random.default_rng(seed).standard_normal((len(MEMBERS), SIZE))
        return np.concatenate([drawn[:1], drawn[0] + 0.3 * drawn[1:]])

    def make_pool(self, folder: Path, vectors: NDArray[Any], **settings: Any) -> ModelPool:
        """Three members of six tensors in two groups: a single row, a single column, one axis, one element."""
        for member, vector in zip(MEMBERS, vectors.astype(np.float32), strict=True):
            save_checkpoint(folder / f"{member}.safetensors", whole(vector))
        defaults: dict[str, Any] = {
            "groups": {group: (f"{group}.*",) for group in SIZES},
            "statistics": {member: dict(self.statistics) for member in MEMBERS},
        }
        members = {member: f"{member}.safetensors" for member in settings.pop("order_of_members", MEMBERS)}
        return ModelPool.open(PoolSettings(members=members, **(defaults | settings)), folder)

    def recipe(self, values: tuple[float, ...], members: Sequence[str] = MEMBERS) -> Recipe:
        """The same values on every segment."""
        segments = tuple(Segment(group, 0, size, values) for group, size in SIZES.items())
        sources = tuple(f"pool:{member}" for member in members[: self.sources])
        return Recipe(self.name, sources, segments, self.options)

    def build(self, pool: ModelPool, recipe: Recipe, mode: Mode = "dense", cache: Path | None = None) -> NDArray[Any]:
        """The recipe's flat float32 vector."""
        builder = Builder(pool, mode, gram_cache=cache)
        vector = builder.resolve(recipe)
        pieces = [values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)]
        return np.concatenate(pieces)

    def expected(self, vectors: Sequence[NDArray[Any]], flat: tuple[float, ...]) -> NDArray[np.float64]:
        """``direct`` from flat vectors to a flat vector."""
        models = [whole(vector.astype(np.float64)) for vector in vectors[: self.sources]]
        theta = {name: np.stack([model[name] for model in models]) for name in SHAPES}
        merged_model = self.direct(theta, self.operator().values(flat, self.sources))
        return np.concatenate([np.asarray(merged_model[name], dtype=np.float64).ravel() for name in SHAPES])

    def test_refuses_a_wrong_number_of_values(self, pool: ModelPool) -> None:
        with pytest.raises(RecipeError, match="values"):
            self.build(pool, self.recipe((*self.values(), 0.5)))

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_agrees_with_the_plain_computation(self, pool: ModelPool, mode: Mode) -> None:
        sources = [pool.vector(name) for name in pool.sources]
        for seed in range(10):
            built = self.build(pool, self.recipe(self.values(seed)), mode)
            expected = self.expected(sources, self.values(seed))
            np.testing.assert_allclose(built, expected, rtol=self.tolerance, atol=self.tolerance / 10)

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_equal_digests_build_equal_bytes(self, pool: ModelPool, mode: Mode) -> None:
        once, again = (self.build(pool, self.recipe(self.values()), mode) for _ in range(2))
        assert once.tobytes() == again.tobytes()

    def test_what_is_kept_on_disk_changes_no_byte(self, pool: ModelPool, tmp_path: Path) -> None:
        plain = self.build(pool, self.recipe(self.values()), "table")
        first, second = (self.build(pool, self.recipe(self.values()), "table", tmp_path / "cache") for _ in range(2))
        assert plain.tobytes() == first.tobytes() == second.tobytes()

    def test_chunk_size_changes_no_byte(self, pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
        at_once = self.build(pool, self.recipe(self.values()), "table")
        for module in (table, pieces, source, stream):
            monkeypatch.setattr(module, "CHUNK", 7)
        assert self.build(pool, self.recipe(self.values()), "table").tobytes() == at_once.tobytes()

    def test_any_cut_of_a_tensor_reads_the_same(self, pool: ModelPool) -> None:
        builder = Builder(pool, "table")
        vector = builder.resolve(self.recipe(self.values()))
        for slot in pool.layout.slots:
            at_once = np.concatenate([values for _, values in builder.chunks(vector, slot)])
            for start, stop in ((0, 1), (slot.size // 2, slot.size), (slot.size // 3, slot.size // 3 + 1)):
                assert builder.read(vector, slot, start, stop).tobytes() == at_once[start:stop].tobytes()

    def test_load_order_of_members_changes_no_byte(self, tmp_path: Path) -> None:
        pool = self.make_pool(tmp_path / "a", self.vectors(6))
        turned = self.make_pool(tmp_path / "b", self.vectors(6), order_of_members=MEMBERS[::-1])
        recipe = self.recipe(self.values())
        assert self.build(pool, recipe).tobytes() == self.build(turned, recipe).tobytes()

    def test_order_of_sources_changes_rounding_only(self, pool: ModelPool) -> None:
        merge = self.operator()
        if merge.ordered:
            pytest.skip("the order of sources is part of this operator")
        first = 1 if merge.based else 0
        order = [*range(first), *reversed(range(first, self.sources))]
        values = merge.values(self.values(), self.sources)
        turned: list[float] = []
        for parameter in merge.parameters:
            each = values.each(parameter.name)
            moved = {"segment": range(1), "source": order, "expert": [at - 1 for at in order[1:]]}[parameter.per]
            turned += [each[at] for at in moved]
        one = self.build(pool, self.recipe(self.values()))
        other = self.build(pool, self.recipe(tuple(turned), [MEMBERS[at] for at in order]))
        np.testing.assert_allclose(one, other, rtol=self.tolerance, atol=self.tolerance)

    def test_equal_sources_give_themselves(self, tmp_path: Path) -> None:
        if not self.idempotent:
            pytest.skip("equal sources give something else by definition")
        vectors = np.repeat(self.vectors(7)[:1], 3, axis=0)
        pool = self.make_pool(tmp_path / "pool", vectors)
        built = self.build(pool, self.recipe(self.equal_values()), "table")
        np.testing.assert_allclose(built, vectors[0], rtol=self.tolerance, atol=self.tolerance / 10)

    def test_scaled_differences_give_a_scaled_difference(self, tmp_path: Path) -> None:
        if not (self.operator().based and self.homogeneous):
            pytest.skip("this operator has no base, or is not homogeneous by definition")
        vectors = self.vectors(8)
        scaled = vectors[0] + 4.0 * (vectors - vectors[0])
        recipe = self.recipe(self.values())
        small = self.build(self.make_pool(tmp_path / "small", vectors), recipe) - vectors[0]
        large = self.build(self.make_pool(tmp_path / "large", scaled), recipe) - vectors[0]
        np.testing.assert_allclose(large, 4.0 * small, rtol=1e-4, atol=1e-5)

    def test_segments_do_not_see_one_another(self, pool: ModelPool) -> None:
        if isinstance(self.operator(), LinearOperator):
            pytest.skip("coefficients may depend on the segment")
        one, two = self.values(1), self.values(2)
        cut = 33
        segments = (Segment("first", 0, cut, one), Segment("first", cut, 80, two), Segment("second", 0, 25, two))
        built = self.build(pool, replace(self.recipe(one), segments=segments), "table")
        left, right = (self.build(pool, self.recipe(values), "table") for values in (one, two))
        assert built.tobytes() == np.concatenate([left[:cut], right[cut:]]).tobytes()

    def test_excluded_tensors_are_copied(self, tmp_path: Path) -> None:
        pool = self.make_pool(tmp_path / "pool", self.vectors(9), groups={"first": ("first.*",)}, exclude=("second.*",))
        sources = tuple(f"pool:{member}" for member in MEMBERS[: self.sources])
        recipe = Recipe(self.name, sources, (Segment("first", 0, 80, self.values()),), self.options)
        assert self.build(pool, recipe).shape == (80,)
        assert set(pool.copied) == {name for name in SHAPES if name.startswith("second")}

    @pytest.mark.parametrize("mode", ["dense", "table"])
    @pytest.mark.parametrize("case", ["zero", "one zero", "equal", "opposite", "tiny", "one differs"])
    def test_degenerate_sources_give_finite_models(self, tmp_path: Path, case: str, mode: Mode) -> None:
        vectors = self.vectors(10)
        if case == "zero":
            vectors[:] = 0.0
        elif case == "one zero":
            vectors[0] = 0.0
        elif case == "equal":
            vectors[1:] = vectors[0]
        elif case == "opposite":
            vectors[1] = -vectors[0]
        elif case == "one differs":
            vectors[1:] = vectors[0]
            vectors[1, 3] += 1.0
        else:
            vectors *= 1e-30
        pool = self.make_pool(tmp_path / "pool", vectors)
        assert np.isfinite(self.build(pool, self.recipe(self.values()), mode)).all()


def whole(vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A flat vector as the six tensors."""
    found, at = {}, 0
    for name, shape in SHAPES.items():
        found[name] = vector[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    return found


class Coefficients:
    """Calls a linear operator with plain numbers, its sources at one ``omega`` (radians), or with one ``gram``."""

    tensor = None
    layer: int | None = None
    layers = 0

    def __init__(
        self,
        merge: LinearOperator,
        sources: int,
        omega: float | None = None,
        gram: NDArray[np.float64] | None = None,
        attached: Mapping[str, tuple[float, ...]] | None = None,
    ) -> None:
        self.sources = sources
        self._merge = merge
        self._omega = omega
        self._gram = np.eye(sources) if gram is None else gram
        self._attached = attached or {}

    def __call__(self, *values: float) -> tuple[float, ...]:
        """The coefficients for these values."""
        return self._merge.coefficients(self._merge.values(values, self.sources), self)

    def angle(self, scope: Scope) -> float | None:
        return self._omega

    def gram(self, scope: Scope) -> NDArray[np.float64]:
        return self._gram

    def attached(self, kind: str) -> tuple[float, ...]:
        return self._attached[kind]
