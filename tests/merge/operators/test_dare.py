from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.errors import RecipeError
from evomerge.merge.noise import bit_stream, uniform_bits
from evomerge.merge.operators.port import Values, operator
from evomerge.testing.operator import MEMBERS, SIZE, OperatorContract, Whole, whole
from tests.merge.operators.test_ties import Options, merged

SEED = 3


def masks(name: str, shape: tuple[int, ...], density: float, member: str, seed: int = SEED) -> tuple[Any, float]:
    """Which entries survive, and with what probability."""
    limit = round(density * 65_536)
    return uniform_bits(bit_stream(seed, f"pool:{member}:{name}"), 0, int(np.prod(shape))).reshape(
        shape
    ) < limit, limit / 65_536


class TestDareLinear(OperatorContract):
    name = "dare_linear"
    options: Options = (("seed", SEED),)
    rescale = "exact"
    tolerance = 2e-5

    def equal_values(self) -> tuple[float, ...]:
        return (0.5, 0.5, 1.0, 1.0, 1.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, tensor in theta.items():
            says = []
            each = zip(values.each("weight"), values.each("density"), MEMBERS[1:], tensor[1:], strict=True)
            for weight, density, member, expert in each:
                tau = expert - tensor[0]
                survives, probability = masks(name, tau.shape, density, member)
                kept = np.abs(tau * survives).sum()
                scale = {"exact": 1 / probability, "l1": np.abs(tau).sum() / kept if kept else 1.0, "none": 1.0}
                says.append(weight * scale[self.rescale] * tau * survives)
            found[name] = tensor[0] + values.one("lambda") * self.together(np.stack(says), values.each("weight"))
        return found

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return says.sum(axis=0)


class TestDareL1(TestDareLinear):
    options: Options = (("seed", SEED), ("rescale", "l1"))
    rescale = "l1"


class TestDareUnscaled(TestDareLinear):
    options: Options = (("seed", SEED), ("rescale", "none"))
    rescale = "none"


class TestDareTies(TestDareLinear):
    name = "dare_ties"

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "sum", "sum", 1.0)


class TestDareTiesMeanByCount(TestDareLinear):
    name = "dare_ties"
    options: Options = (("seed", SEED), ("elect", "count"), ("aggregate", "mean"))

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "count", "mean", 1.0)


def build(folder: Path, vectors: Any, values: tuple[float, ...], options: Options, name: str = "dare_linear") -> Any:
    contract = TestDareLinear()
    contract.name, contract.options = name, options  # type: ignore[misc] # of this instance
    return contract.build(contract.make_pool(folder, vectors), contract.recipe(values), "table")


@pytest.fixture
def vectors() -> Any:
    return TestDareLinear().vectors(2).astype(np.float32)


def test_density_one_is_task_arithmetic(vectors: Any, tmp_path: Path) -> None:
    dropped = build(tmp_path / "a", vectors, (0.3, -0.6, 1.0, 1.0, 0.7), ())
    plain = build(tmp_path / "b", vectors, (0.21, -0.42), (), "task_arithmetic")
    np.testing.assert_allclose(dropped, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_mean_over_seeds_is_the_delta_and_the_variance_as_drawn(
    vectors: Any, tmp_path: Path, density: float
) -> None:
    """Variance ``tau^2 (1 - K) / K``."""
    runs = 300
    values = (1.0, 0.0, density, 1.0, 1.0)
    tau = (vectors[1] - vectors[0]).astype(np.float64)
    found = np.stack([build(tmp_path / str(seed), vectors, values, (("seed", seed),)) for seed in range(runs)])
    scaled = (found - vectors[0]) / tau
    spread = np.sqrt((1 - density) / density)
    assert abs(scaled.mean() - 1) < 5 * spread / np.sqrt(runs * SIZE)
    assert np.abs(scaled.mean(axis=0) - 1).max() < 5 * spread / np.sqrt(runs)
    assert scaled.var() == pytest.approx(spread**2, rel=0.1)


def test_experts_have_masks_of_their_own(vectors: Any, tmp_path: Path) -> None:
    one = build(tmp_path / "a", vectors, (1.0, 0.0, 0.5, 0.5, 1.0), ()) != vectors[0]
    two = build(tmp_path / "b", vectors, (0.0, 1.0, 0.5, 0.5, 1.0), ()) != vectors[0]
    assert 0.25 < (one == two).mean() < 0.75


def test_a_mask_depends_on_the_name_of_its_tensor(tmp_path: Path) -> None:
    vectors = np.zeros((3, SIZE), dtype=np.float32)
    vectors[1:] = 1.0
    tensors = whole(build(tmp_path, vectors, (1.0, 0.0, 0.5, 1.0, 1.0), ()))
    first, other = tensors["first.1.bias"] != 0, tensors["first.1.weight"][0] != 0
    assert not np.array_equal(first, other)


def test_larger_densities_keep_what_smaller_ones_keep(vectors: Any, tmp_path: Path) -> None:
    kept = [
        build(tmp_path / str(density), vectors, (1.0, 0.0, density, 1.0, 1.0), ()) != vectors[0]
        for density in (0.2, 0.4, 0.8)
    ]
    assert (kept[0] <= kept[1]).all()
    assert (kept[1] <= kept[2]).all()


def test_l1_restores_the_norm_of_each_tensor(vectors: Any, tmp_path: Path) -> None:
    built = build(tmp_path, vectors, (1.0, 0.0, 0.6, 1.0, 1.0), (("rescale", "l1"),)) - vectors[0]
    for found, tau in zip(whole(built).values(), whole(vectors[1] - vectors[0]).values(), strict=True):
        if found.any():
            assert np.abs(found).sum() == pytest.approx(np.abs(tau).sum(), rel=1e-4)


def test_a_seed_must_be_a_whole_number() -> None:
    with pytest.raises(RecipeError, match=r"seed of DareLinear is 1\.5"):
        operator("dare_linear", (("seed", 1.5),))
