from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.checkpoints import save_checkpoint
from evomerge.testing.operator import MEMBERS, SIZE, OperatorContract, Whole, whole

Information = NDArray[np.float64]


def drawn() -> Information:
    return np.random.default_rng(3).lognormal(-20.0, 3.0, (3, SIZE))


class WithFisher(OperatorContract):
    """Members with a fisher file each: ``information`` (3, SIZE)."""

    information: ClassVar[Callable[[], Information]] = staticmethod(drawn)

    def make_pool(self, folder: Path, vectors: NDArray[Any], **settings: Any) -> ModelPool:
        for member, row in zip(MEMBERS, self.information(), strict=True):
            save_checkpoint(folder / "fisher" / f"{member}.safetensors", whole(row.astype(np.float32)))
        files = {member: {"fisher": f"fisher/{member}.safetensors"} for member in MEMBERS}
        return super().make_pool(folder, vectors, **({"statistics": files} | settings))


class TestFisher(WithFisher):
    name = "fisher"

    def direct(self, theta: Whole, values: Values) -> Whole:
        rows = self.information()[: self.sources]
        scaled = [whole(row / np.sqrt(np.mean(row**2))) for row in rows]
        found = {}
        for name, tensor in theta.items():
            importance = np.stack([np.maximum(each[name], values.one("floor")) for each in scaled])
            weights = np.array(values.each("weight")).reshape(-1, *[1] * (tensor.ndim - 1)) * importance
            found[name] = (weights * tensor).sum(axis=0) / weights.sum(axis=0)
        return found


class TestFisherOfTwo(TestFisher):
    sources = 2


def pool_of(folder: Path, information: Information, **settings: Any) -> tuple[TestFisher, ModelPool]:
    contract = TestFisher()
    contract.information = lambda: information  # type: ignore[misc]
    return contract, contract.make_pool(folder, contract.vectors(1), **settings)


def test_equal_information_is_the_weighted_mean(tmp_path: Path) -> None:
    contract, pool = pool_of(tmp_path, np.repeat(drawn()[:1], 3, axis=0))
    built = contract.build(pool, contract.recipe((0.2, 0.5, 0.3, 1e-6)))
    np.testing.assert_allclose(built, np.array([0.2, 0.5, 0.3]) @ contract.vectors(1), rtol=1e-5, atol=1e-6)


def test_the_size_of_an_information_does_not_matter(tmp_path: Path) -> None:
    contract, pool = pool_of(tmp_path / "a", drawn())
    one = contract.build(pool, contract.recipe(contract.values()))
    contract, pool = pool_of(tmp_path / "b", drawn() * np.array([[1.0], [1e6], [1e-6]]))
    np.testing.assert_allclose(contract.build(pool, contract.recipe(contract.values())), one, rtol=1e-4, atol=1e-5)


def test_the_only_model_that_predictions_depend_on_is_returned(tmp_path: Path) -> None:
    information = np.zeros((3, SIZE))
    information[1] = 1.0
    contract, pool = pool_of(tmp_path, information)
    built = contract.build(pool, contract.recipe((0.3, 0.3, 0.3, 1e-9)))
    np.testing.assert_allclose(built, contract.vectors(1)[1], rtol=1e-6, atol=1e-6)


def test_where_nothing_depends_on_a_parameter_it_is_the_weighted_mean(tmp_path: Path) -> None:
    information = drawn()
    information[:, :40] = 0.0
    contract, pool = pool_of(tmp_path, information)
    built = contract.build(pool, contract.recipe((0.1, 0.6, 0.3, 1e-6)))
    mean = np.array([0.1, 0.6, 0.3]) @ contract.vectors(1)
    np.testing.assert_allclose(built[:40], mean[:40], rtol=1e-5, atol=1e-6)
    assert np.abs(built[40:] - mean[40:]).max() > 0.01


def test_a_model_that_alone_has_a_weight_is_returned_exactly(tmp_path: Path) -> None:
    contract, pool = pool_of(tmp_path, drawn())
    built = contract.build(pool, contract.recipe((0.0, 0.7, 0.0, 1e-6)))
    assert built.tobytes() == pool.vector("two").tobytes()


def test_no_weight_at_all_is_refused() -> None:
    with pytest.raises(RecipeError, match="all zero"):
        TestFisher().operator().values((0.0, 0.0, 1e-6), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_information_that_is_not_finite_is_refused_by_tensor(tmp_path: Path, bad: float) -> None:
    information = drawn()
    information[2, 84] = bad
    contract, pool = pool_of(tmp_path, information)
    with pytest.raises(RecipeError, match=r"fisher file of source 2 .*second.2.one"):
        contract.build(pool, contract.recipe(contract.values()))


@pytest.mark.parametrize("transposed", [True, False])
def test_a_file_of_another_model_is_refused_by_tensor(tmp_path: Path, transposed: bool) -> None:
    tensors = whole(drawn()[0].astype(np.float32))
    weight = tensors.pop("second.2.weight")
    save_checkpoint(tmp_path / "other.safetensors", tensors | ({"second.2.weight": weight.T} if transposed else {}))
    statistics = {member: {"fisher": "other.safetensors"} for member in MEMBERS}
    contract, pool = pool_of(tmp_path, drawn(), statistics=statistics)
    with pytest.raises(RecipeError, match=r"second.2.weight.*anew"):
        contract.build(pool, contract.recipe(contract.values()))


def test_a_pool_without_fisher_says_where_to_give_it(tmp_path: Path) -> None:
    contract = TestFisher()
    pool = OperatorContract.make_pool(contract, tmp_path, contract.vectors(1))
    with pytest.raises(RecipeError, match=r"pool.statistics.one.fisher"):
        contract.build(pool, contract.recipe(contract.values()))


def test_what_is_kept_follows_the_content_of_the_files(tmp_path: Path) -> None:
    for folder, information in (("a", drawn()), ("b", drawn() ** 2)):
        contract, pool = pool_of(tmp_path / folder, information)
        recipe = contract.recipe(contract.values())
        kept = contract.build(pool, recipe, "table", tmp_path / "cache")
        assert kept.tobytes() == contract.build(pool, recipe, "table").tobytes()
