from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.recipes import file
from evomerge.recipes.resolve import Resolved

MEMBERS = "pool: {base: base, members: {math: math, code: code}}\n"

WRONG = {
    "a list": ("[1, 2]", "1: the file is a list; a recipe file has the keys pool, merge, recipes, dtype"),
    "unknown key": (
        f"{MEMBERS}merge: {{operator: linear}}\nmreges: 1",
        "3: unknown key 'mreges'; did you mean 'merge'?",
    ),
    "no merge": (MEMBERS, "1: the key 'merge' is missing"),
    "no pool": ("merge: {operator: linear}", "1: the key 'pool' is missing"),
    "unknown key in pool": (
        "pool: {members: {a: b}, bas: c}\nmerge: {operator: linear}",
        "1: unknown key 'bas' in pool; did you mean",
    ),
    "merge is text": (f"{MEMBERS}merge: linear", "2: merge is 'linear'; give keys and values below it: operator"),
    "no operator": (f"{MEMBERS}merge: {{sources: [math]}}", "2: merge needs an operator; give a name"),
    "unknown operator": (
        f"{MEMBERS}merge:\n  sources: [math]\n  operator: liner",
        "4: merge: unknown operator 'liner'; did you mean 'linear'?",
    ),
    "unknown option": (
        f"{MEMBERS}merge:\n  operator: linear\n  options:\n    normalise: true",
        "5: unknown key 'normalise' in merge.options; did you mean 'normalize'?",
    ),
    "wrong option": (
        f"{MEMBERS}merge:\n  operator: linear\n  options: {{normalize: 3}}",
        "4: merge.options.normalize is 3; give true or false",
    ),
    "impossible option": (
        f"{MEMBERS}merge:\n  operator: slerp\n  options: {{angle: right}}",
        "4: merge.options.angle is 'right'; give",
    ),
    "unknown parameter": (
        f"{MEMBERS}merge:\n  operator: linear\n  parameters:\n    wieght: 1",
        "5: unknown key 'wieght' in merge.parameters; did you mean 'weight'?",
    ),
    "parameters are a number": (
        f"{MEMBERS}merge: {{operator: linear, parameters: 3}}",
        "2: merge.parameters is 3; give",
    ),
    "unknown source": (
        f"{MEMBERS}merge:\n  operator: linear\n  sources: [math, cod]",
        "4: merge.sources: there is no member or recipe 'cod'; did you mean 'code'? there are math, code, base",
    ),
    "source twice": (
        f"{MEMBERS}merge: {{operator: linear, sources: [math, math]}}",
        "2: merge.sources has 'math' twice",
    ),
    "no sources": (
        f"{MEMBERS}merge: {{operator: linear, sources: []}}",
        "2: merge.sources is a list; give a list of names",
    ),
    "a value for another model": (
        f"{MEMBERS}merge:\n  operator: linear\n  sources: [math]\n  parameters: {{weight: {{code: 1}}}}",
        "5: unknown key 'code' in merge.parameters.weight; known keys: math",
    ),
    "base without need": (
        f"{MEMBERS}merge: {{operator: linear, base: math}}",
        "2: merge.base: the operator has no base",
    ),
    "unknown base": (
        f"{MEMBERS}merge: {{operator: nearswap, base: bass}}",
        "2: merge.base: there is no member or recipe",
    ),
    "dtype": (f"{MEMBERS}merge: {{operator: linear}}\ndtype: bf16", "3: dtype is 'bf16'; give one of float64, float32"),
    "recipes are a list": (f"{MEMBERS}merge: {{operator: linear}}\nrecipes: [a]", "3: recipes is a list; give a name"),
    "recipe called merge": (
        f"{MEMBERS}merge: {{operator: linear}}\nrecipes: {{merge: {{operator: linear}}}}",
        "3: a recipe cannot be called 'merge'",
    ),
    "recipe called like a model": (
        f"{MEMBERS}merge: {{operator: linear}}\nrecipes: {{code: {{operator: linear}}}}",
        "3: recipes.code: a model of the pool has that name",
    ),
    "circle": (
        f"{MEMBERS}merge: {{operator: linear, sources: [a]}}\nrecipes:\n  a: {{operator: linear, sources: [b]}}\n"
        "  b: {operator: linear, sources: [a]}",
        "4: recipes.a is made of itself (a -> b -> a); break the circle",
    ),
    "the merge as a source": (
        f"{MEMBERS}merge: {{operator: linear, sources: [a]}}\nrecipes:\n  a: {{operator: linear, sources: [merge]}}",
        "4: recipes.a.sources: there is no member or recipe 'merge'",
    ),
    "base among the sources": (
        f"{MEMBERS}merge:\n  operator: task_arithmetic\n  sources: [base, math]",
        "4: merge.sources: 'base' is the base already; leave it out",
    ),
    "no base": (
        "pool: {members: {math: math, code: code}}\nmerge: {operator: task_arithmetic}",
        "2: merge: task_arithmetic merges differences from a base; give the base's folder as pool.base",
    ),
    "too many sources": (
        f"{MEMBERS}merge:\n  operator: slerp\n  sources: [base, math, code]",
        "4: merge.sources: Slerp takes 2 sources, the recipe has 3",
    ),
    "the base's own name": (
        "pool: {base: math, members: {math: math, code: code}}\nmerge: {operator: linear, sources: [base, code]}",
        "2: merge: the base is the member 'math'; write that name instead of 'base'",
    ),
    "a case is missing": (
        f"{MEMBERS}merge:\n  operator: slerp\n  parameters:\n    t: [{{filter: '*mlp*', value: 1}}]",
        "5: merge.parameters.t: no case fits the tensor 'embed'; end the list with '- value: NUMBER' for the rest",
    ),
    "a model's value is missing": (
        f"{MEMBERS}merge:\n  operator: linear\n  parameters:\n    weight: {{math: 1}}",
        "5: merge.parameters.weight has no value for 'code'; give one",
    ),
    "unknown group": (
        f"{MEMBERS}merge:\n  operator: slerp\n  parameters:\n    t: {{groups: {{everything: 1}}}}",
        "5: unknown key 'everything' in merge.parameters.t.groups; known keys: all",
    ),
    "too deep": (
        f"{MEMBERS}merge:\n  operator: slerp\n  parameters:\n    t: [{{layers: '2:9', value: 1}}, {{value: 0}}]",
        "5: merge.parameters.t: layer 8 is meant, but the model has only 4 (0 is the first)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(case: str, resolved: Callable[[str], Resolved]) -> None:
    text, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        resolved(text)
    first = str(caught.value).splitlines()[0]
    assert first.partition("recipe.yml:")[2].startswith(message)


def test_all_errors_are_listed(tmp_path: Path) -> None:
    text = f"{MEMBERS}dtype: x\nmerge:\n  operator: linear\n  parameters: {{weight: {{math: a, cod: 1}}}}\nrecpes: 1"
    with pytest.raises(ConfigError) as caught:
        file.read(tmp_path / "recipe.yml", text)
    assert [line.partition("recipe.yml:")[2][:2] for line in str(caught.value).splitlines()] == ["2:", "6:"]
    fixed = text.replace("dtype: x\n", "").replace("\nrecpes: 1", "")
    with pytest.raises(ConfigError) as caught:
        file.read(tmp_path / "recipe.yml", fixed)
    assert len(str(caught.value).splitlines()) == 2


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe file"):
        file.read(tmp_path / "nowhere.yml")
    with pytest.raises(ConfigError, match="is a folder"):
        file.read(tmp_path)
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        file.read(tmp_path / "binary.yml")


def test_reading_opens_no_model(tmp_path: Path) -> None:
    assert file.read(tmp_path / "recipe.yml", f"{MEMBERS}merge: {{operator: linear}}").pool.base == "base"
