from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.metrics_weighted import MetricsWeighted
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.operator import Coefficients, OperatorContract, Whole

NUMBERS = {"one": (0.9, 100.0), "two": (0.6, 300.0), "three": (0.7, 200.0)}
LOSSES, STEPS = ({name: numbers[at] for name, numbers in NUMBERS.items()} for at in range(2))


class TestByLoss(OperatorContract):
    name = "metrics_weighted"

    def make_pool(self, folder: Path, vectors: NDArray[Any], **settings: Any) -> ModelPool:
        known = {name: {"loss": LOSSES[name], "step": STEPS[name]} for name in NUMBERS}
        return super().make_pool(folder, vectors, statistics=known, **settings)

    def heights(self, p: float) -> dict[str, float]:
        return {name: loss**-p for name, loss in LOSSES.items()}

    def direct(self, theta: Whole, values: Values) -> Whole:
        latest = sorted(STEPS, key=STEPS.__getitem__, reverse=True)[: int(values.one("window")) or 3]
        heights = [height if name in latest else 0.0 for name, height in self.heights(values.one("p")).items()]
        return {name: np.average(tensor, axis=0, weights=heights) for name, tensor in theta.items()}


class TestByStep(TestByLoss):
    options = (("metric", "step"),)

    def heights(self, p: float) -> dict[str, float]:
        return {name: step**p for name, step in STEPS.items()}


def shares(merge: MetricsWeighted, p: float, window: int = 0, **attached: tuple[float, ...]) -> tuple[float, ...]:
    return Coefficients(merge, 3, attached=attached)(p, window)


def test_a_power_of_zero_is_the_mean() -> None:
    np.testing.assert_allclose(shares(MetricsWeighted(), 0.0, loss=(3.0, 1.0, 2.0)), [1 / 3] * 3)


def test_a_large_power_takes_the_best_or_the_last() -> None:
    np.testing.assert_allclose(shares(MetricsWeighted(), 5000.0, loss=(3.0, 1.0, 2.0)), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(shares(MetricsWeighted("step"), 5000.0, step=(1.0, 2.0, 3.0)), [0, 0, 1], atol=1e-12)


@given(st.floats(0, 20), st.lists(st.floats(0.1, 10), min_size=3, max_size=3), st.floats(1e-3, 1e3))
def test_a_lower_loss_never_weighs_less_and_its_unit_does_not_matter(p: float, loss: list[float], unit: float) -> None:
    found = shares(MetricsWeighted(), p, loss=tuple(loss))
    assert sum(found) == pytest.approx(1.0)
    assert [found[at] for at in np.argsort(loss)] == sorted(found, reverse=True)
    np.testing.assert_allclose(shares(MetricsWeighted(), p, loss=tuple(unit * one for one in loss)), found, rtol=1e-6)


def test_only_the_latest_checkpoints_count() -> None:
    found = shares(MetricsWeighted(), 1.0, 2, loss=(1.0, 2.0, 2.0), step=(10.0, 20.0, 30.0))
    np.testing.assert_allclose(found, [0.0, 0.5, 0.5])


@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), float("inf")])
def test_a_number_without_a_power_is_refused(loss: float) -> None:
    with pytest.raises(RecipeError, match="above 0"):
        shares(MetricsWeighted(), 1.0, loss=(1.0, loss, 2.0))


def test_a_missing_number_names_the_member(tmp_path: Path) -> None:
    contract = TestByLoss()
    pool = OperatorContract.make_pool(contract, tmp_path, contract.vectors(1))
    with pytest.raises(RecipeError, match=r"pool\.statistics\.one\.loss"):
        contract.build(pool, contract.recipe((1.0, 0.0)))


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(RecipeError, match="accuracy"):
        MetricsWeighted("accuracy")  # type: ignore[arg-type]
