"""What becomes of a mergekit YAML's text; its tensors are compared in test_mergekit_parity.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.config.yamlfile import Problems, parse
from evomerge.errors import ConfigError, PoolError
from evomerge.merge.layout import layer_of
from evomerge.merge.operators.port import Parameter
from evomerge.recipes import file
from evomerge.recipes.mergekit.filters import filtered
from evomerge.recipes.mergekit.quantity import Where
from evomerge.recipes.mergekit.quantity import given as quantity
from evomerge.recipes.mergekit.reading import Imported, imported, is_mergekit
from evomerge.recipes.mergekit.series import cases
from evomerge.recipes.notation import Reader
from evomerge.recipes.parameters import Place

TWO = "models:\n  - {model: math, parameters: {weight: 0.6}}\n  - {model: code, parameters: {weight: 0.4}}\n"

Read = Callable[[str], Imported]


@pytest.fixture
def read(models: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Imports a text in the folder of the models base, math and code, which is the current one."""
    monkeypatch.chdir(models)
    return lambda text: imported(text, Path("mk.yml"), models)


def recipe(found: Imported) -> Any:
    file.read(Path("recipe.yml"), found.text)  # it is one
    return yaml.safe_load(found.text)


def test_the_plainest_recipe(read: Read) -> None:
    assert recipe(read(f"merge_method: linear\ndtype: bfloat16\n{TWO}")) == {
        "pool": {"members": {"math": "math", "code": "code"}},
        "merge": {
            "operator": "linear",
            "sources": ["math", "code"],
            "options": {"normalize": True},
            "parameters": {"weight": {"math": 0.6, "code": 0.4}},
        },
        "dtype": "bfloat16",
    }


def test_the_dtype_written_is_the_last_one(read: Read) -> None:
    assert recipe(read(f"merge_method: linear\ndtype: float32\nout_dtype: float16\n{TWO}"))["dtype"] == "float16"


def test_lists_and_filters_are_kept(read: Read) -> None:
    found = recipe(
        read(
            "merge_method: slerp\nbase_model: base\nmodels: [{model: math}]\n"
            "parameters: {t: [{filter: attn, value: [0, 0.5, 1]}, {filter: 'm[lp]*', value: 0.2}, {value: 0.4}]}"
        )
    )
    assert found["merge"]["sources"] == ["base", "math"]
    assert found["merge"]["parameters"]["t"] == [
        {"filter": "*attn*", "value": [0.0, 0.5, 1.0]},
        {"filter": "*m[[]lp][*]*", "value": 0.2},
        {"value": 0.4},
    ]


def test_a_level_without_an_answer_passes_the_question_on(read: Read) -> None:
    found = recipe(
        read(
            "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
            "  - {model: math, parameters: {weight: [{filter: attn, value: 0.1}]}}\n  - {model: code}\n"
            "parameters: {weight: [{filter: mlp, value: 0.2}, {value: 0.3}], lambda: 0.5}"
        )
    )
    rest = [{"filter": "*mlp*", "value": 0.1}, {"value": 0.15}]
    assert found["merge"]["parameters"]["lambda"] == {
        "math": [{"filter": "*attn*", "value": 0.05}, *rest],
        "code": rest,
    }


def test_places_of_models(models: Path, read: Read, tmp_path: Path) -> None:
    elsewhere = tmp_path / "out"
    text = (
        "merge_method: linear\nmodels:\n"
        + "".join(
            f"  - {{model: '{one}', parameters: {{weight: 1}}}}\n"
            for one in ("math", "org/Some.Model-7B", "org/model@main", f"{models}/code", "math+org/adapter", "nowhere")
        )
        + "base_model: org/model@main"
    )
    found = yaml.safe_load(imported(text, Path("mk.yml"), elsewhere).text)["pool"]
    assert found["base"] == "hf:org/model@main"
    assert found["members"] == {
        "math": "../math",
        "some_model_7b": "hf:org/Some.Model-7B",
        "code": f"{models}/code",
        "adapter": "../math+hf:org/adapter",
        "nowhere": "nowhere",
    }


def test_models_may_be_mappings(read: Read) -> None:
    found = recipe(
        read(
            "merge_method: linear\nparameters: {weight: 1}\nmodels:\n"
            "  - {model: {model: {path: org/a, revision: v1}, lora: {path: org/b}}}\n  - {model: {model: {path: math}}}"
        )
    )
    assert found["pool"]["members"] == {"b": "hf:org/a@v1+hf:org/b", "math": "math"}


def test_equal_names_are_numbered(read: Read) -> None:
    text = (
        "merge_method: linear\nbase_model: base\nparameters: {weight: 1}\nmodels: [{model: a/x}, %s, {model: c/base}]"
    )
    assert list(recipe(read(text % "{model: b/x}"))["pool"]["members"]) == ["x", "x_2", "base_2"]


def test_vocabularies(read: Read) -> None:
    def pool(tokenizer: str) -> Any:
        found = recipe(read(f"merge_method: linear\nbase_model: math\n{tokenizer}\n{TWO}"))["pool"]
        return found.get("vocabulary"), found.get("pad_vocabulary")

    assert pool("") == (None, None)
    assert pool("tokenizer_source: union") == ("union", None)
    assert pool("tokenizer: {source: base, pad_to_multiple_of: 64}") == ("base", 64)
    assert pool("tokenizer: {source: code}") == ("code", None)
    assert pool("tokenizer_source: math") == ("base", None)
    assert pool("tokenizer_source: org/other") == ("hf:org/other", None)


def test_rows_of_single_tokens(read: Read) -> None:
    found = recipe(
        read(
            "merge_method: linear\nbase_model: math\ntokenizer:\n  source: union\n  tokens:\n"
            "    a: {source: code, force: true}\n    b: {source: {kind: zero}}\n"
            "    c: {source: {kind: model_token, model: math, token: d}}\n"
            f"    e: {{source: {{kind: model_token, model: code, token_id: 7}}}}\n{TWO}"
        )
    )
    assert found["pool"]["tokens"] == {
        "a": {"source": "code", "force": True},
        "b": {},
        "c": {"source": "base", "token": "d"},
        "e": {"source": "code", "token": 7},
    }


@pytest.mark.parametrize("template", ["auto", "{% for one in messages %}{{ one.content }}\n{% endfor %}"])
def test_chat_templates(read: Read, template: str) -> None:
    found = read(f"merge_method: linear\nchat_template: {json.dumps(template)}\n{TWO}")
    assert recipe(found)["pool"]["chat_template"] == template
    assert not any("chat_template" in note for note in found.notes)


def test_what_is_left_out_is_told(read: Read) -> None:
    found = read(
        f"merge_method: linear\nchat_template: chatml\nnote: mine\n{TWO}parameters: {{int8_mask: true, densty: 0.3}}"
    )
    assert found.notes == (
        "line 2: chat_template is left out: its text is mergekit's; give the text as pool.chat_template",
        "line 3: note is left out: mergekit has no such key, and ignores it",
        "line 7: int8_mask is left out: saves memory in mergekit and changes no result",
        "line 7: densty is left out: linear has no such parameter in mergekit, which ignores it",
    )


def test_layers_that_are_all_are_not_listed(read: Read) -> None:
    Path("math/config.json").write_text('{"num_hidden_layers": 4}')
    text = "merge_method: linear\nparameters: {weight: 1}\nslices:\n  - sources: [%s]\n"
    first, second = "{model: math, layer_range: [0, 4]}", "{model: code, layer_range: [0, 4]}"
    assert recipe(read(text % f"{first}, {second}"))["pool"]["layers"] == {"code": ["0:4"]}


def test_names_of_layers_are_each_models_own(read: Read, at: Any, resolved: Any) -> None:
    found = read(
        "merge_method: linear\nparameters: {normalize: false, weight: [{filter: layers.3., value: 1}, {value: 0}]}\n"
        "slices:\n  - sources: [{model: math, layer_range: [2, 4]}, {model: code, layer_range: [0, 2]}]\n"
    )
    values = at(resolved(found.text).recipe, found.text)
    assert {name: value for name, value in values.items() if value != (0.0, 0.0)} == {
        "layers.1.attn.w": (1.0, 0.0),
        "layers.1.mlp.w": (1.0, 0.0),
    }


def test_weights_that_are_computed_follow_the_tensors(read: Read, at: Any, resolved: Any) -> None:
    found = read(
        "merge_method: nuslerp\nmodels:\n  - {model: math, parameters: {weight: [1, 4]}}\n"
        "  - {model: code, parameters: {weight: [{filter: mlp, value: 2}, {value: 1}]}}"
    )
    values = at(resolved(found.text).recipe, found.text)
    assert [round(values[f"layers.{layer}.attn.w"][0], 9) for layer in range(4)] == [
        1 / 2,
        round(1 / 3, 9),
        1 / 4,
        1 / 5,
    ]
    assert values["layers.3.mlp.w"][0] == pytest.approx(2 / 6)
    assert values["embed"][0] == 0.5


def test_names_of_tensors_need_the_models(read: Read) -> None:
    slices = "  - sources: [{model: org/a, layer_range: [%s]}]\n"
    with pytest.raises(PoolError):
        read(
            "merge_method: passthrough\nslices:\n" + slices % "0, 2" + slices % "1, 4" + "    parameters: {scale: 0.5}"
        )


WRONG = {
    "a list": ("[1]", "1: the file is a list; a mergekit YAML has keys such as merge_method and models"),
    "no method": ("models: [{model: math}]", "1: merge_method needs a name"),
    "unknown method": (f"merge_method: tie\n{TWO}", "1: the merge method 'tie' cannot be imported; did you mean"),
    "no models": ("merge_method: linear", "1: exactly one of models and slices (or modules) must be there"),
    "models and slices": (f"merge_method: linear\n{TWO}slices: []", "1: exactly one of models and slices"),
    "models are text": ("merge_method: linear\nmodels: math", "2: models or slices must be a list"),
    "no model": ("merge_method: linear\nmodels:\n  - {weight: 1}", "3: an input needs a model"),
    "model is a number": ("merge_method: linear\nmodels:\n  - {model: 3}", "3: an input needs a model"),
    "twice": (f"merge_method: linear\n{TWO}  - {{model: math}}", "5: math is listed twice in one slice"),
    "parameters are text": (f"merge_method: linear\nparameters: all\n{TWO}", "2: parameters is 'all'; give name"),
    "no weight": ("merge_method: linear\nmodels:\n  - {model: math}", "3: weight has no value of math for any tensor"),
    "weight is text": (
        "merge_method: linear\nmodels:\n  - {model: math, parameters: {weight: lots}}",
        "3: weight is 'lots'; give a number, a list of numbers, or a list of filters and values",
    ),
    "case without value": (
        "merge_method: linear\nmodels:\n  - {model: math, parameters: {weight: [{filter: a}]}}",
        "3: weight has a case without a value; give 'filter: TEXT, value: NUMBER'",
    ),
    "no base": ("merge_method: ties\nmodels:\n  - {model: math}", "3: ties needs a base_model; name the models'"),
    "too many": (f"merge_method: slerp\nbase_model: base\nparameters: {{t: 1}}\n{TWO}", "5: slerp takes 1 models"),
    "modules": (
        "merge_method: linear\nmodules:\n  text: {models: [{model: math}]}\n  vision: {models: [{model: math}]}",
        "2: modules: text, vision cannot be imported: a pool is one model",
    ),
    "token without a source": (
        f"merge_method: linear\ntokenizer:\n  tokens: {{a: {{force: true}}}}\n{TWO}",
        "3: tokenizer.tokens.a has no source that is known; give a model, {kind: zero}",
    ),
    "token and number": (
        "merge_method: linear\ntokenizer:\n  tokens:\n"
        f"    a: {{source: {{kind: model_token, model: math, token: b, token_id: 3}}}}\n{TWO}",
        "4: tokenizer.tokens.a has no source that is known",
    ),
    "token of a stranger": (
        f"merge_method: linear\ntokenizer:\n  tokens: {{a: {{source: other}}}}\n{TWO}",
        "3: tokenizer.tokens.a: other is not merged; name one of math, code",
    ),
    "no rule": (
        f"merge_method: linear\ntokenizer:\n  tokens: {{a: math}}\n{TWO}",
        "3: tokenizer.tokens.a is 'math'; give a mapping with its source",
    ),
    "two tokenizers": (
        f"merge_method: linear\ntokenizer: {{source: base}}\ntokenizer_source: base\n{TWO}",
        "3: tokenizer_source and tokenizer are two ways to say one thing",
    ),
    "dtype": (f"merge_method: linear\ndtype: int8\n{TWO}", "2: dtype 'int8' cannot be written; give one of float64"),
    "no range": (
        "merge_method: linear\nslices:\n  - sources:\n      - {model: math}",
        "4: layer_range must be [first, last + 1], such as [0, 16]",
    ),
    "no sources": ("merge_method: linear\nslices:\n  - {model: math}", "3: a slice needs sources"),
    "uneven": (
        "merge_method: linear\nslices:\n  - sources:\n      - {model: math, layer_range: [0, 2]}\n"
        "      - {model: code, layer_range: [0, 3]}",
        "3: the sources of a slice have different numbers of layers",
    ),
    "base not in slice": (
        "merge_method: ties\nbase_model: base\nslices:\n  - sources: [{model: math, layer_range: [0, 2]}]",
        "4: the base base is not among the slice's sources; list it with its layer_range",
    ),
    "option that varies": (
        f"merge_method: linear\nparameters: {{normalize: [{{filter: mlp, value: true}}]}}\n{TWO}",
        "4: normalize varies from tensor to tensor, but it is an option of the operator",
    ),
    "epsilon": (
        "merge_method: della\nbase_model: base\nmodels:\n  - {model: math, parameters: {weight: 1, density: 0.9}}",
        "4: epsilon 0.15 leaves no probabilities between 0 and 1 at density 0.9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(case: str, read: Read) -> None:
    text, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"mk.yml:{message}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("merge_method: linear\nmodels: []", True),
        ("models: []", True),
        ("pool: {members: {a: b}}\nmerge: {operator: linear}", False),
        ("a: [", False),
        ("[1]", False),
        ("", False),
    ],
)
def test_what_is_a_mergekit_yaml(text: str, answer: bool) -> None:
    assert is_mergekit(text) == answer


NAMES = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{module}.weight"
        for layer in range(3)
        for module in ("norm", "self_attn.q", "self_attn.norm", "mlp.up")
    ),
    "model.layers.1.extra.weight",
    "model.norm.weight",
    "lm_head.weight",
]
VALUES = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.25, 1.0]) for name in NAMES})
ALIKE = VALUES.map(
    lambda values: {name: values[name.replace(".1.", ".0.").replace("extra", "norm")] for name in values}
)


@given(VALUES | ALIKE)
def test_values_of_tensors_as_cases_are_the_same_values(values: dict[str, float]) -> None:
    problems = Problems("")
    text = yaml.safe_dump(cases(values))
    setting = Reader(Parameter("t", 0, 1, 0), (), problems).read("t", parse(text, problems))
    problems.raise_any()
    for name, value in values.items():
        assert setting.at(Place(name, "all", layer_of(name), (0, 1, 2))) == value


@given(VALUES | ALIKE)
def test_values_of_tensors_as_filters_are_the_same_values(values: dict[str, float]) -> None:
    problems = Problems("")
    node = parse(yaml.safe_dump({"t": filtered(values, 3)}), problems)
    found = quantity("t", (node,), None, None, problems)
    for name, value in values.items():
        layer = layer_of(name)
        where = Where(name, {}) if layer is None else Where(name, {}, 0, layer, 3)
        assert found.at(where) == value
