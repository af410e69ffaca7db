from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Values, operator
from evomerge.testing.operator import SHAPES, OperatorContract, Whole

Options = tuple[tuple[str, str | int | float | bool], ...]


def trimmed(tau: Any, threshold: float) -> Any:
    return np.where(np.abs(tau) >= threshold, tau, 0.0)


def cut(magnitudes: Any, keep: float, least: int = 0) -> float:
    """The smallest magnitude kept."""
    kept = max(round(keep * magnitudes.size), least)
    return float(np.sort(magnitudes, axis=None)[magnitudes.size - kept]) if kept else np.inf


def merged(says: Any, weights: Any, elect: str, aggregate: str, zero: float) -> Any:
    """What experts agree on, (N, ...) to (...)."""
    votes = says.sum(axis=0) if elect == "sum" else np.sign(says).sum(axis=0)
    sign = np.where(np.abs(votes) > 1e-12, np.sign(votes), zero)
    agreeing = np.where(np.sign(says) == sign, says, 0.0)
    if aggregate == "max":
        return sign * np.abs(agreeing).max(axis=0)
    if aggregate == "sum":
        return agreeing.sum(axis=0)
    shares = np.abs(np.array(weights)).reshape(-1, *[1] * (says.ndim - 1))
    weight = (shares * (agreeing != 0)).sum(axis=0)
    return agreeing.sum(axis=0) / np.where(weight == 0, 1, weight)


class TestTies(OperatorContract):
    name = "ties"

    scope = "model"
    elect = "sum"
    aggregate = "mean"
    zero = "majority"

    def equal_values(self) -> tuple[float, ...]:
        return (0.5, 0.5, 1.0, 1.0, 1.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        weights, densities = values.each("weight"), values.each("density")
        taus = {name: tensor[1:] - tensor[0] for name, tensor in theta.items()}
        wholes = np.abs(np.concatenate([tau.reshape(len(weights), -1) for tau in taus.values()], axis=1))
        says = {}
        for name, tau in taus.items():
            says[name] = np.stack(
                [
                    w * trimmed(one, cut(whole, keep) if self.scope == "model" else cut(np.abs(one), keep, 1))
                    for one, whole, w, keep in zip(tau, wholes, weights, densities, strict=True)
                ]
            )
        signs = [np.sign(x.sum(axis=0) if self.elect == "sum" else np.sign(x).sum(axis=0)) for x in says.values()]
        majority = sum(float(sign.sum()) for sign in signs)
        zero = 1.0 if self.zero == "plus" or majority >= 0 else -1.0
        return {
            name: theta[name][0] + values.one("lambda") * merged(x, weights, self.elect, self.aggregate, zero)
            for name, x in says.items()
        }


class TestTiesPerTensor(TestTies):
    options: Options = (("scope", "tensor"), ("zero", "plus"))
    scope = "tensor"
    zero = "plus"


class TestTiesByCount(TestTies):
    options: Options = (("elect", "count"),)
    elect = "count"


class TestTiesSum(TestTies):
    options: Options = (("aggregate", "sum"),)
    aggregate = "sum"


class TestTiesMax(TestTies):
    options: Options = (("aggregate", "max"), ("scope", "tensor"))
    scope = "tensor"
    aggregate = "max"


class TestTiesRescaled(OperatorContract):
    name = "ties"
    options: Options = (("rescale", "l1"), ("scope", "tensor"), ("aggregate", "sum"), ("zero", "plus"))
    sources = 2

    def equal_values(self) -> tuple[float, ...]:
        return (1.0, 1.0, 1.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, expert) in theta.items():
            tau = expert - base
            kept = trimmed(tau, cut(np.abs(tau), values.one("density"), 1))
            scale = np.abs(tau).sum() / np.abs(kept).sum()
            found[name] = base + values.one("lambda") * values.one("weight") * scale * kept
        return found


def build(vectors: Any, tmp_path: Path, values: tuple[float, ...], options: Options = ()) -> Any:
    contract = TestTies()
    contract.options = options  # type: ignore[misc] # of this instance
    contract.sources = len(vectors)  # type: ignore[misc]
    padded = np.concatenate([vectors, np.repeat(vectors[:1], 3 - len(vectors), axis=0)])
    return contract.build(contract.make_pool(tmp_path, padded), contract.recipe(values), "table")


@pytest.fixture
def vectors() -> Any:
    return TestTies().vectors(1).astype(np.float32)


def test_one_expert_untrimmed_is_that_expert(vectors: Any, tmp_path: Path) -> None:
    built = build(vectors[:2], tmp_path, (0.3, 1.0, 1.0))
    np.testing.assert_allclose(built, vectors[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("aggregate", "times"), [("mean", 1), ("sum", 2), ("max", 1)])
def test_equal_experts_give_that_expert_or_their_sum(vectors: Any, tmp_path: Path, aggregate: str, times: int) -> None:
    base, expert = vectors[:2]
    options = (("aggregate", aggregate),)
    built = build(np.stack([base, expert, expert]), tmp_path, (1.0, 1.0, 1.0, 1.0, 1.0), options)
    np.testing.assert_allclose(built, base + times * (expert - base), rtol=1e-6, atol=1e-6)


def test_equal_signs_untrimmed_give_the_mean(vectors: Any, tmp_path: Path) -> None:
    vectors[1:] = vectors[0] + np.abs(vectors[1:])
    built = build(vectors, tmp_path, (1.0, 1.0, 1.0, 1.0, 1.0))
    np.testing.assert_allclose(built, vectors[1:].mean(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("zero", "turns"), [("majority", True), ("plus", False)])
def test_only_the_majority_turns_with_all_deltas(tmp_path: Path, zero: str, turns: bool) -> None:
    tau = np.ones((2, 105), dtype=np.float32)
    tau[1, :30] = -1.0  # these cancel out
    base = np.zeros((1, 105), dtype=np.float32)
    values = (1.0, 1.0, 1.0, 1.0, 1.0)
    up = build(np.concatenate([base, tau]), tmp_path / "up", values, (("zero", zero),))
    down = build(np.concatenate([base, -tau]), tmp_path / "down", values, (("zero", zero),))
    assert np.array_equal(up[30:], -down[30:])
    assert np.array_equal(up[:30], -down[:30]) == turns


def test_where_all_cancels_and_nothing_is_elected_plus_wins(tmp_path: Path) -> None:
    tau = np.ones((2, 105), dtype=np.float32) * np.array([[1.0], [-1.0]], dtype=np.float32)
    built = build(np.concatenate([np.zeros((1, 105), np.float32), tau]), tmp_path, (1.0, 1.0, 1.0, 1.0, 1.0))
    assert np.array_equal(built, np.ones(105))


def test_a_lone_expert_of_negative_weight_is_subtracted(vectors: Any, tmp_path: Path) -> None:
    """mergekit divides by the signed weight, which adds it."""
    built = build(vectors[:2], tmp_path, (-0.5, 1.0, 1.0))
    np.testing.assert_allclose(built, 2 * vectors[0] - vectors[1], rtol=1e-5, atol=1e-6)


def test_of_each_tensor_at_least_one_entry_survives(vectors: Any, tmp_path: Path) -> None:
    built = build(vectors[:2], tmp_path, (1.0, 0.01, 1.0), (("scope", "tensor"),))
    at = 0
    for shape in SHAPES.values():
        size = int(np.prod(shape))
        assert np.count_nonzero(built[at : at + size] != vectors[0, at : at + size]) == 1
        at += size


def test_all_that_equal_the_smallest_survivor_survive(tmp_path: Path) -> None:
    vectors = np.zeros((2, 105), dtype=np.float32)
    vectors[1, ::2] = 0.5
    built = build(vectors, tmp_path, (1.0, 0.1, 1.0))
    assert np.array_equal(built, vectors[1])


@pytest.mark.parametrize("option", ["scope", "elect", "zero", "aggregate", "rescale"])
def test_unknown_choices_are_refused(option: str) -> None:
    with pytest.raises(RecipeError, match=f"no {option} 'other'"):
        operator("ties", ((option, "other"),))


def test_density_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match="density = 0"):
        operator("ties").values((1.0, 0.0, 1.0), 2)
