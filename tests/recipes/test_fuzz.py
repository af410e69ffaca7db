"""Whatever stands in a file, it is read or refused with a message; nothing else escapes."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.errors import EvomergeError
from evomerge.merge.pool import ModelPool
from evomerge.recipes import file
from evomerge.recipes.mergekit.reading import imported
from evomerge.recipes.resolve import resolve

RECIPE = {
    "pool": {"base": "base", "members": {"math": "math", "code": "code"}, "layers": {"math": ["0:2", "2:4"]}},
    "recipes": {"one": {"operator": "slerp", "sources": ["math", "code"], "parameters": {"t": [0, 1]}}},
    "merge": {
        "operator": "task_arithmetic",
        "base": "base",
        "sources": ["one", "math"],
        "options": {},
        "parameters": {
            "lambda": {
                "one": [{"filter": "*mlp*", "layers": "0:2", "value": [0.1, 0.2]}, {"value": 0.5}],
                "math": {"groups": {"all": 0.3}},
            }
        },
    },
    "dtype": "bfloat16",
}
MERGEKIT = {
    "merge_method": "ties",
    "base_model": "base",
    "slices": [
        {
            "sources": [
                {"model": "base", "layer_range": [0, 2]},
                {
                    "model": {"model": {"path": "math", "revision": "main"}},
                    "layer_range": [0, 2],
                    "parameters": {"weight": [{"filter": "mlp", "value": [0.1, 0.2]}, {"value": 1}], "density": 0.5},
                },
            ],
            "base_model": "base",
            "parameters": {"lambda": 0.5},
        },
        {
            "sources": [
                {"model": "math", "layer_range": [1, 3], "parameters": {"weight": 0.4}},
                {"model": "base", "layer_range": [0, 2]},
            ]
        },
    ],
    "parameters": {"normalize": True, "int8_mask": False},
    "tokenizer": {"source": "union", "pad_to_multiple_of": 8, "tokens": {}},
    "chat_template": "auto",
    "dtype": "float32",
}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.floats(-2, 2)
    | st.sampled_from(["", "math", "0:2", "*", "x", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "model", "a", "math"]), inner)
    ),
    max_leaves=4,
)


@st.composite
def spoilt(draw: Any, document: dict[str, Any]) -> str:
    """A document with one of its parts removed, or replaced by anything."""
    found = copy.deepcopy(document)
    place: Any = found
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not inner or not isinstance(inner, dict | list) or draw(st.booleans()):
            break
        place = inner
    if draw(st.booleans()):
        place[key] = draw(ANYTHING)
    else:
        del place[key]
    return yaml.safe_dump(found, sort_keys=False)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_documents_are_right(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    read = file.read(models / "recipe.yml", yaml.safe_dump(RECIPE))
    assert resolve(read, ModelPool.open(read.pool, read.root)).recipe.operator == "task_arithmetic"
    without = {key: value for key, value in MERGEKIT.items() if key != "tokenizer"}
    text = yaml.safe_dump(without).replace("revision: main", "")
    assert "layers" in imported(text, Path("mk.yml"), models).text


@FUZZ
@given(text=spoilt(RECIPE))
def test_recipe_files(models: Path, text: str) -> None:
    with suppress(EvomergeError):
        read = file.read(models / "recipe.yml", text)
        resolve(read, ModelPool.open(read.pool, read.root))


@FUZZ
@given(text=spoilt(MERGEKIT))
def test_mergekit_yamls(models: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    with suppress(EvomergeError):
        file.read(models / "recipe.yml", imported(text, Path("mk.yml"), models).text)
