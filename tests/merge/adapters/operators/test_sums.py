from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.errors import RecipeError
from evomerge.merge.adapters.merged import MergedAdapter
from evomerge.merge.build import Builder
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import EQUAL, UNEQUAL, Dense, FactorContract


class TestLoraCat(FactorContract):
    name = "lora_cat"

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        weights = values.each("weight")
        return sum(w * one.scale * one.B @ one.A for w, one in zip(weights, adapters, strict=True) if one is not None)

    def test_is_task_arithmetic(self, pool: ModelPool) -> None:
        recipe = self.recipe((0.3, -0.7, 1.1))
        whole = Recipe("task_arithmetic", recipe.sources, recipe.segments)
        np.testing.assert_allclose(self.build(pool, recipe), self.build(pool, whole), rtol=1e-5, atol=1e-5)

    def test_one_adapter_of_weight_one_is_that_model_to_the_byte(self, pool: ModelPool) -> None:
        for at, member in enumerate(("one", "two", "three")):
            values = tuple(float(at == other) for other in range(3))
            assert self.build(pool, self.recipe(values)).tobytes() == pool.vector(member).tobytes()

    def test_weights_of_zero_give_the_base_to_the_byte(self, pool: ModelPool) -> None:
        assert self.build(pool, self.recipe((0.0, 0.0, 0.0))).tobytes() == pool.vector("base").tobytes()

    def test_ranks_add_up_over_the_adapters_that_count(self, pool: ModelPool) -> None:
        vector = Builder(pool, "table").resolve(self.recipe((1.0, 0.0, 0.5)))
        assert isinstance(vector, MergedAdapter)
        ranks = {slot.name: factors.rank for slot in pool.layout.slots if (factors := vector.factors(slot))}
        one, three = UNEQUAL["one"], UNEQUAL["three"]
        assert ranks["first.0.weight"] == one + three
        assert ranks["first.1.weight"] == three
        assert ranks["second.3.weight"] == one
        assert ranks.keys() == {"first.0.weight", "first.1.weight", "second.2.weight", "second.3.weight"}


class TestLoraLinear(FactorContract):
    name = "lora_linear"
    ranks = EQUAL

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        weights = values.each("weight")
        terms = [(w * one.scale, one) for w, one in zip(weights, adapters, strict=True) if one is not None]
        b = sum(np.sqrt(abs(c)) * one.B for c, one in terms)
        a = sum(np.sign(c) * np.sqrt(abs(c)) * one.A for c, one in terms)
        return np.asarray(b @ a)

    def test_one_adapter_has_no_cross_terms(self, pool: ModelPool) -> None:
        for weight in (1.0, -0.5):
            alone = self.build(pool, self.recipe((0.0, weight, 0.0)))
            expected = pool.vector("base") + weight * (pool.vector("two") - pool.vector("base"))
            np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)

    def test_equal_adapters_with_weights_that_sum_to_one_give_several_times_the_adapter(self, tmp_path: Path) -> None:
        adapters = self.adapters(7)
        pool = self.make_pool(tmp_path, dict.fromkeys(adapters, adapters["one"]))
        base = pool.vector("base")
        built = self.build(pool, self.recipe((1 / 3, 1 / 3, 1 / 3)))
        np.testing.assert_allclose(built - base, 3.0 * (pool.vector("one") - base), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lora_linear", "factor_fusion", "rmm"])
def test_unequal_ranks_are_refused_by_name(tmp_path: Path, name: str) -> None:
    contract = TestLoraCat()
    pool = contract.make_pool(tmp_path, contract.adapters(1))
    width = {"lora_linear": 3, "factor_fusion": 6, "rmm": 4}[name]
    recipe = contract.recipe((1.0,) * width)
    with pytest.raises(RecipeError, match=r"equal ranks.*first.0.weight.*2 in pool:one, 4 in pool:two.*lora_svd"):
        contract.build(pool, Recipe(name, recipe.sources, recipe.segments))
