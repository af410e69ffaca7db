import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.adapters.peft import targets


def adapted(told: list[str] | str, module: str) -> bool:
    """Whether PEFT adapts a module: a text is a regular expression of whole names, a list has names or endings."""
    if isinstance(told, str):
        return re.fullmatch(told, module) is not None
    return module in told or any(module.endswith(f".{target}") for target in told)


LLAMA = [f"model.layers.{at}.{part}" for at in range(12) for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up")]


def test_all_of_a_kind_are_named_by_kind() -> None:
    wanted = [name for name in LLAMA if name.endswith(("q_proj", "v_proj"))]
    assert targets(wanted, [name for name in LLAMA if name not in wanted]) == ["q_proj", "v_proj"]


def test_some_layers_are_named_as_briefly_as_they_can_be() -> None:
    wanted = ["model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj"]
    assert targets(wanted, [name for name in LLAMA if name not in wanted]) == [
        "1.self_attn.q_proj",
        "11.self_attn.q_proj",
    ]


def test_a_name_that_ends_anothers_needs_an_expression() -> None:
    told = targets(["lin", "head.0"], ["body.lin", "headx0"])
    assert isinstance(told, str)
    assert [name for name in ("lin", "head.0", "body.lin", "headx0") if adapted(told, name)] == ["lin", "head.0"]


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@given(st.sets(NAMES, min_size=1), st.sets(NAMES))
def test_exactly_the_wanted_are_adapted(wanted: set[str], others: set[str]) -> None:
    told = targets(wanted, others - wanted)
    for name in wanted | others:
        assert adapted(told, name) == (name in wanted)


@pytest.mark.parametrize("order", [1, -1])
def test_order_changes_nothing(order: int) -> None:
    assert targets(LLAMA[:10][::order], LLAMA[10:]) == targets(LLAMA[:10], LLAMA[10:])
