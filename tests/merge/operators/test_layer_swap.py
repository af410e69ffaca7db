import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.merge.operators.layer_swap import LayerSwap
from evomerge.merge.operators.port import Values
from evomerge.testing.operator import Coefficients, OperatorContract, Whole

LANGUAGE, TASK = (1.0, 0.0), (0.0, 1.0)


class TestLayerSwap(OperatorContract):
    name = "layer_swap"
    sources = 2

    def values(self, seed: int = 0) -> tuple[float, ...]:
        """What fits into three layers."""
        draw = np.random.default_rng(seed)
        b, u, t = [(0, 0, 0), (1, 0, 1), (0, 1, 2), (1, 0, 2), (2, 1, 0), (3, 0, 0), (0, 3, 0), (2, 0, 1)][seed % 8]
        return (float(b), float(u), float(t), float(draw.random()))

    def equal_values(self) -> tuple[float, ...]:
        return (1.0, 0.0, 1.0, 0.5)

    def direct(self, theta: Whole, values: Values) -> Whole:
        b, u, t = (int(values.one(name)) for name in ("b", "u", "t"))
        shares = [0.0] * 3
        if b:
            shares[:b] = [1.0] * b
            shares[b : b + t] = [values.one("mix")] * t
        if u:
            shares[3 - u :] = [1.0] * u
            shares[3 - u - t : 3 - u] = [values.one("mix")] * t
        found = {}
        for name, (language, task) in theta.items():
            share = shares[int(name.split(".")[1])]
            found[name] = share * language + (1 - share) * task
        return found


class Layer(Coefficients):
    """One tensor of a model."""

    def __init__(self, merge: LayerSwap, layer: int | None, layers: int, tensor: str = "x") -> None:
        super().__init__(merge, 2)
        self.layer = layer
        self.layers = layers
        self.tensor = tensor  # type: ignore[assignment]  # the base class has none


counts = st.integers(0, 6)


@given(counts, counts, st.integers(0, 2), st.floats(0, 1))
def test_outside_the_transitions_every_layer_is_one_of_the_experts(b: int, u: int, t: int, mix: float) -> None:
    layers = b + u + 2 * t + 3
    found = [Layer(LayerSwap(), layer, layers)(b, u, t, mix) for layer in range(layers)]
    mixed = (mix, 1.0 - mix)
    middle = layers - b - u - t * bool(b) - t * bool(u)
    assert found == ([LANGUAGE] * b + [mixed] * t * bool(b) + [TASK] * middle + [mixed] * t * bool(u) + [LANGUAGE] * u)


@pytest.mark.parametrize("tensor", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_no_layers_leave_the_task_expert_and_all_the_language_expert(tensor: str) -> None:
    assert Layer(LayerSwap(), None, 8, tensor)(0, 0, 0, 0.5) == TASK
    assert Layer(LayerSwap(), None, 8, tensor)(8, 0, 0, 0.5) == LANGUAGE
    assert Layer(LayerSwap(), None, 8, tensor)(0, 8, 0, 0.5) == LANGUAGE


def test_embeddings_go_with_the_bottom_and_the_head_with_the_top() -> None:
    for tensor, bottom, top in (
        ("model.embed_tokens.weight", LANGUAGE, TASK),
        ("transformer.wpe.weight", LANGUAGE, TASK),
        ("model.norm.weight", TASK, LANGUAGE),
        ("lm_head.weight", TASK, LANGUAGE),
    ):
        assert Layer(LayerSwap(), None, 8, tensor)(2, 0, 1, 0.5) == bottom
        assert Layer(LayerSwap(), None, 8, tensor)(0, 2, 1, 0.5) == top


def test_embeddings_and_head_go_where_they_are_told_to() -> None:
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    assert Layer(LayerSwap(embeddings="task"), None, 8, embedding)(2, 2, 0, 0.5) == TASK
    assert Layer(LayerSwap(embeddings="top"), None, 8, embedding)(0, 2, 0, 0.5) == LANGUAGE
    assert Layer(LayerSwap(head="language"), None, 8, head)(0, 0, 0, 0.5) == LANGUAGE
    assert Layer(LayerSwap(head="bottom"), None, 8, head)(2, 0, 0, 0.5) == LANGUAGE


@pytest.mark.parametrize("values", [(9, 0, 0, 0.5), (5, 4, 0, 0.5), (3, 3, 2, 0.5), (7, 0, 2, 0.5)])
def test_more_layers_than_the_model_has_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match="8 layers"):
        Layer(LayerSwap(), 0, 8)(*values)


def test_an_unknown_side_is_named() -> None:
    with pytest.raises(RecipeError, match="left"):
        LayerSwap(embeddings="left")  # type: ignore[arg-type]


def test_swapped_layers_are_the_experts_bit_for_bit(tmp_path: Path) -> None:
    contract = TestLayerSwap()
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    built = contract.build(pool, contract.recipe((1.0, 0.0, 0.0, math.pi / 4)), "table")
    one, two = pool.vector("one"), pool.vector("two")
    assert built.tobytes() == np.concatenate([one[:60], two[60:]]).tobytes()
