import pytest

from evomerge.errors import RecipeError
from evomerge.merge.operators.linear import Linear, TaskArithmetic
from evomerge.merge.operators.port import Values
from evomerge.testing.operator import Coefficients, OperatorContract, Whole


class TestLinear(OperatorContract):
    name = "linear"

    def direct(self, theta: Whole, values: Values) -> Whole:
        weights = values.each("weight")
        return {name: sum(w * one for w, one in zip(weights, tensor, strict=True)) for name, tensor in theta.items()}  # type: ignore[misc]


class TestNormalizedLinear(TestLinear):
    options = (("normalize", True),)

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: tensor / sum(values.each("weight")) for name, tensor in super().direct(theta, values).items()}


class TestTaskArithmetic(OperatorContract):
    name = "task_arithmetic"

    def direct(self, theta: Whole, values: Values) -> Whole:
        lambdas = values.each("lambda")
        return {
            name: base + sum(w * (one - base) for w, one in zip(lambdas, experts, strict=True))
            for name, (base, *experts) in theta.items()
        }


def test_weights_that_cancel_cannot_be_normalized() -> None:
    with pytest.raises(RecipeError, match="sum to zero"):
        Coefficients(Linear(normalize=True), sources=2)(0.5, -0.5)


def test_task_arithmetic_ends_are_exact() -> None:
    assert Coefficients(TaskArithmetic(), sources=3)(0.0, 0.0) == (1.0, 0.0, 0.0)
    assert Coefficients(TaskArithmetic(), sources=2)(1.0) == (0.0, 1.0)
