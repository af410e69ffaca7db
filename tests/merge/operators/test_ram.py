from pathlib import Path
from typing import Any

import numpy as np

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import SIZE, OperatorContract, Whole


class TestRam(OperatorContract):
    name = "ram"
    homogeneous = False  # epsilon is a distance

    def equal_values(self) -> tuple[float, ...]:
        return (1e-5,)

    def vectors(self, seed: int) -> Any:
        """Experts that leave about half of the base as it is."""
        vectors = super().vectors(seed)
        still = np.random.default_rng(seed).random((2, SIZE)) < 0.5
        vectors[1:] = np.where(still, vectors[0], vectors[1:])
        return vectors

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, *experts) in theta.items():
            taus = np.stack(experts) - base
            active = np.abs(taus) > values.one("epsilon")
            many = active.sum(axis=0)
            alone = active & (many == 1)
            shared = active & (many > 1)
            gains = self.gains(shared, alone, values).reshape(-1, *[1] * base.ndim)
            found[name] = base + (gains * alone * taus).sum(axis=0) + (shared * taus).sum(axis=0) / np.maximum(many, 1)
        return found

    def gains(self, shared: Any, alone: Any, values: Values) -> Any:
        return np.ones(len(shared))


class TestRamPlus(TestRam):
    name = "ram_plus"

    def equal_values(self) -> tuple[float, ...]:
        return (1e-5, 0.1, 0.2)

    def gains(self, shared: Any, alone: Any, values: Values) -> Any:
        counts = [each.reshape(len(each), -1).sum(axis=1) for each in (shared, alone)]
        return 1 + values.one("r") * np.clip(counts[0] / np.maximum(counts[1], 1e-5), 0, values.one("alpha"))


def build(folder: Path, vectors: Any, name: str, *values: float) -> Any:
    contract = TestRam()
    contract.name = name  # type: ignore[misc] # of this instance
    return contract.build(contract.make_pool(folder, vectors), contract.recipe(values), "table")


def test_disjoint_changes_are_added(tmp_path: Path) -> None:
    vectors = np.repeat(TestRam().vectors(1)[:1], 3, axis=0)
    vectors[1, ::2] += 0.5
    vectors[2, 1::2] -= 0.25
    expected = vectors[1] + vectors[2] - vectors[0]
    np.testing.assert_allclose(build(tmp_path / "a", vectors, "ram", 1e-5), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        build(tmp_path / "b", vectors, "ram_plus", 1e-5, 1.0, 1.0), expected, rtol=1e-6, atol=1e-6
    )


def test_changes_up_to_epsilon_are_none(tmp_path: Path) -> None:
    vectors = np.zeros((3, SIZE), dtype=np.float32)
    vectors[1] = 0.25
    vectors[2] = 0.5
    assert np.array_equal(build(tmp_path, vectors, "ram", 0.25), vectors[2])
