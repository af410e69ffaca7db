from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.errors import RecipeError
from evomerge.merge.build import Builder
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.checkpoints import save_checkpoint
from evomerge.testing.operator import MEMBERS, SIZE, OperatorContract, Whole, whole

Means = dict[str, NDArray[np.float32]]


def means() -> Means:
    """Of a matrix, one axis, a matrix that multiplies from the other side, and nothing of the rest."""
    draw = np.random.default_rng(4)
    return {
        "first.0.weight": draw.random(10, dtype=np.float32),
        "first.1.bias": draw.random(10, dtype=np.float32),
        "second.2.weight": draw.random((5, 1), dtype=np.float32),
    }


class WithActivations(OperatorContract):
    name = "aim"
    sources = 2

    def means(self) -> Means:
        return means()

    def make_pool(self, folder: Path, vectors: NDArray[Any], **settings: Any) -> ModelPool:
        save_checkpoint(folder / "activations.safetensors", self.means())
        statistics = {member: {"activations": "activations.safetensors"} for member in MEMBERS}
        return super().make_pool(folder, vectors, **({"statistics": statistics} | settings))

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, merged) in theta.items():
            mean = self.means().get(name, np.zeros(1)).astype(np.float64)
            left = 1 - mean / (mean.max() or 1.0) * (1 - values.one("omega"))
            found[name] = base + (merged - base) * left
        return found


class TestAIM(WithActivations):
    pass


class TestAIMOfIdleChannels(WithActivations):
    def means(self) -> Means:
        return {name: np.zeros_like(mean) for name, mean in means().items()}


def built(tmp_path: Path, omega: float) -> tuple[Whole, Whole, Whole]:
    contract = TestAIM()
    pool = contract.make_pool(tmp_path, contract.vectors(2))
    vector = contract.build(pool, contract.recipe((omega,)))
    return whole(pool.vector("one")), whole(pool.vector("two")), whole(vector)


def test_omega_one_changes_nothing(tmp_path: Path) -> None:
    _, merged, found = built(tmp_path, 1.0)
    assert all((found[name] == merged[name]).all() for name in found)


def test_the_most_active_channel_keeps_omega_of_its_change_and_idle_ones_all(tmp_path: Path) -> None:
    base, merged, found = built(tmp_path, 0.3)
    most = int(np.argmax(means()["first.0.weight"]))
    one, two, three = (model["first.0.weight"][:, most] for model in (base, merged, found))
    np.testing.assert_allclose(three - one, 0.3 * (two - one), rtol=1e-4, atol=1e-6)
    assert (found["second.2.column"] == merged["second.2.column"]).all()


def test_omega_zero_takes_the_most_active_channel_from_the_base(tmp_path: Path) -> None:
    base, _, found = built(tmp_path, 0.0)
    most = int(np.argmax(means()["second.2.weight"]))
    assert (found["second.2.weight"][most] == base["second.2.weight"][most]).all()


@given(st.floats(0, 1), st.floats(1e-6, 1e6))
def test_the_unit_of_activations_does_not_matter(omega: float, unit: float) -> None:
    merge = TestAIM().operator()
    values = merge.values((omega,), 2)
    one, other = (merge.prepare(Named(scale * means()["first.0.weight"]), values) for scale in (1.0, unit))  # type: ignore[attr-defined]
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Named:
    """Stands for a tensor with activations."""

    name, shape, size = "first.0.weight", (6, 10), 60

    def __init__(self, activations: NDArray[Any]) -> None:
        self._activations = activations.astype(np.float32)

    def attached(self, kind: str, source: int) -> NDArray[np.float32]:
        return self._activations


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_activations_are_refused_by_tensor(bad: float) -> None:
    merge = TestAIM().operator()
    activations = means()["first.0.weight"]
    activations[3] = bad
    with pytest.raises(RecipeError, match=r"first.0.weight"):
        merge.prepare(Named(activations), merge.values((0.5,), 2))  # type: ignore[attr-defined]


def test_activations_of_another_shape_are_refused_by_tensor() -> None:
    merge = TestAIM().operator()
    with pytest.raises(RecipeError, match=r"first.0.weight"):
        merge.prepare(Named(np.ones(9)), merge.values((0.5,), 2))  # type: ignore[attr-defined]


def test_it_comes_after_any_merge(tmp_path: Path) -> None:
    contract = TestAIM()
    pool = contract.make_pool(tmp_path, contract.vectors(2))
    merge = replace(contract.recipe((0.5, 0.5)), operator="linear", sources=("pool:two", "pool:three"))
    after = contract.recipe((0.3,))
    after = Recipe("aim", ("pool:one", f"recipe:{merge.digest}"), after.segments)
    builder = Builder(pool, "table")
    vector = builder.resolve(after, [merge])
    found = np.concatenate([builder.read(vector, slot, 0, slot.size) for slot in pool.layout.slots])
    mean = 0.5 * (contract.vectors(2)[1] + contract.vectors(2)[2])
    np.testing.assert_allclose(found, contract.expected([contract.vectors(2)[0], mean], (0.3,)), rtol=1e-5, atol=1e-6)
    assert found.shape == (SIZE,)
