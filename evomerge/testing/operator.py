"""What every operator must hold; inherit `OperatorContract` and say which operator and what some recipes are.

A recipe's plain meaning is computed by ``direct`` on whole float64 vectors; both engines and every cut of the work must
agree with it::

    class TestMine(OperatorContract):
        name = "package.module:Mine"

        def direct(self, sources, values): ...
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Segment
from evomerge.errors import RecipeError
from evomerge.merge import table
from evomerge.merge.build import Builder, Mode
from evomerge.merge.operators.port import Operator, operator
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

Vector = NDArray[np.float64]
SIZES = {"first": 60, "second": 16}
MEMBERS = ("one", "two", "three")


class OperatorContract(ABC):
    """Inherit, set ``name`` (and ``options``, ``sources``), and write ``direct``."""

    name: ClassVar[str]
    options: ClassVar[tuple[tuple[str, str | int | float | bool], ...]] = ()
    sources: ClassVar[int] = 2
    """How many of the three pool members the recipes here merge."""

    @abstractmethod
    def direct(self, sources: Sequence[Vector], values: tuple[float, ...]) -> Vector:
        """The operator on whole vectors (all groups) with the same values everywhere: slow, plain, float64."""

    @pytest.fixture
    def operator(self) -> Operator:
        return operator(self.name, self.options)

    @pytest.fixture
    def pool(self, tmp_path: Path) -> ModelPool:
        return self.make_pool(tmp_path / "pool", np.random.default_rng(5).standard_normal((3, 76)))

    def make_pool(self, folder: Path, vectors: NDArray[Any], **settings: Any) -> ModelPool:
        """Three members of four tensors each in two groups; one tensor has a single row."""
        for member, vector in zip(MEMBERS, vectors.astype(np.float32), strict=True):
            tensors = {
                "first.1": vector[:50].reshape(5, 10),
                "first.2": vector[50:60].reshape(1, 10),
                "second.1": vector[60:75].reshape(3, 5),
                "second.2": vector[75:],
            }
            save_checkpoint(folder / f"{member}.safetensors", tensors)
        settings = {"groups": {group: (f"{group}.*",) for group in SIZES}} | settings
        members = {member: f"{member}.safetensors" for member in settings.pop("order_of_members", MEMBERS)}
        return ModelPool.open(PoolSettings(members=members, **settings), folder)

    def values(self, seed: int = 0) -> tuple[float, ...]:
        """Some values within the declared range."""
        merge = operator(self.name, self.options)
        drawn = np.random.default_rng(seed).random(merge.width(self.sources))
        return tuple((merge.parameter.low + drawn * (merge.parameter.high - merge.parameter.low)).tolist())

    def recipe(self, values: tuple[float, ...], members: Sequence[str] = MEMBERS) -> Recipe:
        """The same values on every segment."""
        segments = tuple(Segment(group, 0, size, values) for group, size in SIZES.items())
        sources = tuple(f"pool:{member}" for member in members[: self.sources])
        return Recipe(self.name, sources, segments, self.options)

    def build(self, pool: ModelPool, recipe: Recipe, mode: Mode = "dense") -> NDArray[np.float32]:
        """The recipe's flat float32 vector."""
        builder = Builder(pool, mode)
        vector = builder.resolve(recipe)
        pieces = [values for slot in pool.layout.slots for _, values in builder.chunks(vector, slot)]
        return np.concatenate(pieces)

    def test_gives_one_finite_coefficient_per_source_at_any_angle(self, operator: Operator) -> None:
        for omega in (None, 0.0, 1e-9, 0.5, math.pi / 2, math.pi - 1e-9, math.pi):
            for seed in range(5):
                coefficients = operator.coefficients(self.values(seed), lambda scope, omega=omega: omega)  # type: ignore[misc]
                assert len(coefficients) == self.sources
                assert all(type(c) is float and math.isfinite(c) for c in coefficients)

    def test_default_lies_in_the_declared_range(self, operator: Operator) -> None:
        assert operator.parameter.low <= operator.parameter.default <= operator.parameter.high

    def test_options_are_refused_unless_known(self) -> None:
        with pytest.raises(RecipeError, match="nonsense"):
            operator(self.name, (*self.options, ("nonsense", 1)))

    def test_refuses_a_wrong_number_of_values(self, pool: ModelPool) -> None:
        with pytest.raises(RecipeError, match="values"):
            self.build(pool, self.recipe((*self.values(), 0.5)))

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_agrees_with_the_plain_computation(self, pool: ModelPool, mode: Mode) -> None:
        sources = [pool.vector(name).astype(np.float64) for name in pool.sources[: self.sources]]
        for seed in range(10):
            built = self.build(pool, self.recipe(self.values(seed)), mode)
            np.testing.assert_allclose(built, self.direct(sources, self.values(seed)), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_equal_digests_build_equal_bytes(self, pool: ModelPool, mode: Mode) -> None:
        once, again = (self.build(pool, self.recipe(self.values()), mode) for _ in range(2))
        assert once.tobytes() == again.tobytes()

    def test_chunk_size_changes_no_byte(self, pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = self.build(pool, self.recipe(self.values()), "table")
        monkeypatch.setattr(table, "CHUNK", 7)
        assert self.build(pool, self.recipe(self.values()), "table").tobytes() == whole.tobytes()

    def test_load_order_of_members_changes_no_byte(self, tmp_path: Path) -> None:
        vectors = np.random.default_rng(6).standard_normal((3, 76))
        pool = self.make_pool(tmp_path / "a", vectors)
        turned = self.make_pool(tmp_path / "b", vectors, order_of_members=MEMBERS[::-1])
        recipe = self.recipe(self.values())
        assert self.build(pool, recipe).tobytes() == self.build(turned, recipe).tobytes()

    def test_excluded_tensors_are_no_part_of_it(self, tmp_path: Path) -> None:
        vectors = np.random.default_rng(7).standard_normal((3, 76))
        groups = {"first": ("first.*",)}
        pool = self.make_pool(tmp_path / "pool", vectors, groups=groups, exclude=("second.*",))
        values = self.values()
        sources = tuple(f"pool:{member}" for member in MEMBERS[: self.sources])
        recipe = Recipe(self.name, sources, (Segment("first", 0, 60, values),), self.options)
        expected = self.direct([vector[:60] for vector in vectors[: self.sources]], values)
        np.testing.assert_allclose(self.build(pool, recipe), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("mode", ["dense", "table"])
    @pytest.mark.parametrize("case", ["zero", "one zero", "equal", "opposite", "tiny"])
    def test_degenerate_sources_give_finite_models(self, tmp_path: Path, case: str, mode: Mode) -> None:
        vectors = np.random.default_rng(8).standard_normal((3, 76))
        if case == "zero":
            vectors[:] = 0.0
        elif case == "one zero":
            vectors[0] = 0.0
        elif case == "equal":
            vectors[1:] = vectors[0]
        elif case == "opposite":
            vectors[1] = -vectors[0]
        else:
            vectors *= 1e-30
        pool = self.make_pool(tmp_path / "pool", vectors)
        assert np.isfinite(self.build(pool, self.recipe(self.values()), mode)).all()
