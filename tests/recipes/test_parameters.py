from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.config.yamlfile import Problems, parse
from evomerge.errors import ConfigError
from evomerge.merge.operators.port import Parameter
from evomerge.recipes.notation import Reader, layer_range
from evomerge.recipes.parameters import Gap, Gradient, Place, Setting

WEIGHT = Parameter("weight", 0.0, 1.0, 0.5, "source", limits=(-10.0, 10.0))
T = Parameter("t", 0.0, 1.0, 0.5)


def read(text: str, parameter: Parameter = WEIGHT) -> Setting:
    problems = Problems("recipe.yml")
    setting = Reader(parameter, ("math", "code"), problems).read("weight", parse(text, problems))
    problems.raise_any()
    return setting


def place(tensor: str = "layers.1.mlp.w", layer: int | None = 1, layers: int = 4, **further: Any) -> Place:
    return Place(tensor, further.get("group", "all"), layer, tuple(range(layers)), further.get("source", "math"))


def test_a_number_is_the_same_everywhere() -> None:
    assert read("0.3").at(place()) == read("0.3").at(place("embed", None)) == 0.3


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.integers(2, 40))
def test_a_list_is_interpolated_over_the_layers(anchors: list[float], layers: int) -> None:
    gradient = Gradient("weight", 1, tuple(anchors))
    found = [gradient.at(place(layer=layer, layers=layers)) for layer in range(layers)]
    depth = np.linspace(0, 1, layers)
    expected = np.interp(depth, np.linspace(0, 1, len(anchors)), anchors) if len(anchors) > 1 else anchors * layers
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found[0], found[-1]) == (anchors[0], anchors[-1])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_layers_that_lie_on_anchors_have_exactly_their_values(anchors: list[float]) -> None:
    gradient = Gradient("weight", 1, tuple(anchors))
    layers = 3 * (len(anchors) - 1) + 1
    assert [gradient.at(place(layer=3 * at, layers=layers)) for at in range(len(anchors))] == anchors


def test_what_lies_outside_the_layers_takes_the_first_anchor_and_a_lone_layer_the_last() -> None:
    assert read("[0.1, 0.9]").at(place("embed", None)) == 0.1
    assert read("[0.1, 0.9]").at(place("layers.0.w", 0, layers=1)) == 0.9


def test_each_model_has_its_own() -> None:
    setting = read("{math: [0, 3], code: 0.5}")
    assert setting.at(place(source="math")) == 1.0
    assert setting.at(place(source="code")) == 0.5


def test_each_group_has_its_own() -> None:
    setting = read("groups: {attention: 0.2, mlp: {math: 0.3, code: 0.4}}")
    assert setting.at(place(group="attention", source="code")) == 0.2
    assert setting.at(place(group="mlp", source="code")) == 0.4


def test_the_first_case_that_fits_counts() -> None:
    setting = read('[{filter: "*.q.w", value: 1}, {filter: "*.1.*", value: 2}, {value: 3}]')
    assert [setting.at(place(name)) for name in ("layers.1.q.w", "layers.1.k.w", "layers.2.k.w")] == [1.0, 2.0, 3.0]


def test_a_case_for_some_layers_spreads_its_list_over_them() -> None:
    setting = read('[{layers: "1:4", filter: "layers*", value: [0, 2]}, {value: 9}]')
    names = [("embed", None), *((f"layers.{layer}.w", layer) for layer in range(5))]
    assert [setting.at(place(name, layer, layers=5)) for name, layer in names] == [9, 9, 0, 1, 2, 9]


def test_a_pattern_knows_capitals() -> None:
    with pytest.raises(Gap, match=r"no case fits the tensor 'layers\.1\.mlp\.w'; end the list with '- value: NUMBER'"):
        read('[{filter: "*MLP*", value: 1}]').at(place())


def test_a_model_without_a_value_is_named() -> None:
    with pytest.raises(Gap, match="weight has no value for 'code'; give one"):
        read("{math: 1}").at(place(source="code"))


def test_a_group_without_a_value_is_named() -> None:
    with pytest.raises(Gap, match=r"weight\.groups has no value for the group 'all'; give one"):
        read("groups: {mlp: 1}").at(place())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "weight is 'much'; give a number, a list"),
        ("true", "weight is true; give a number"),
        ("[]", "weight is a list; give a number"),
        ("{}", "weight is empty; give a number"),
        ("[0.1, {value: 2}]", r"weight\[1\] is a mapping; give a number"),
        ("{maths: 1, code: 0}", "unknown key 'maths' in weight; did you mean 'math'"),
        ("[{fliter: a, value: 1}]", r"unknown key 'fliter' in weight\[0\]; did you mean 'filter'"),
        ("[{filter: a}]", r"weight\[0\] lacks the key 'value'; give a number"),
        ("[{filter: [a], value: 1}]", r"weight\[0\].filter is a list; give a pattern of tensor names"),
        ("[{layers: last, value: 1}]", r"weight\[0\].layers is 'last'; give a layer such as 3, or a range"),
        ("[{layers: '4:2', value: 1}]", r"weight\[0\].layers is '4:2'"),
        ("11", r"weight: weight = 11.0 is impossible: it must be in \[-10, 10\]"),
        ("{math: [0, 1, -20]}", r"weight.math\[2\]: weight = -20.0 is impossible"),
    ],
)
def test_wrong_values(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe.yml:1: {message}"):
        read(text)


def test_a_parameter_of_all_models_names_none() -> None:
    with pytest.raises(ConfigError, match="weight: t is one for all models; name no models here"):
        read("{math: 0.2}", T)


@pytest.mark.parametrize(("text", "layers"), [("3", (3,)), ("0:2", (0, 1)), ("0:2,5,7:9", (0, 1, 5, 7, 8))])
def test_ranges_of_layers(text: str, layers: tuple[int, ...]) -> None:
    assert layer_range(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "-1", "-1:2", "2:2", "1,,2", "0.5"])
def test_what_is_no_range_of_layers(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller words it
        layer_range(text)
