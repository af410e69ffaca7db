from collections.abc import Callable

import pytest

from evomerge.candidate import Segment
from evomerge.recipes.resolve import Resolved

POOL = "pool: {base: base, members: {math: math, code: code}}\n"

Resolve = Callable[[str], Resolved]


def test_defaults_are_all_members_and_the_operators_own_values(resolved: Resolve) -> None:
    recipe = resolved(f"{POOL}merge: {{operator: linear}}").recipe
    assert (recipe.operator, recipe.sources) == ("linear", ("pool:math", "pool:code"))
    assert [one.values for one in recipe.segments] == [(0.5, 0.5)]
    assert recipe.options == (("normalize", False),)


def test_the_base_goes_first(resolved: Resolve) -> None:
    recipe = resolved(
        f"{POOL}merge: {{operator: task_arithmetic, parameters: {{lambda: {{math: 1, code: 2}}}}}}"
    ).recipe
    assert recipe.sources == ("pool:base", "pool:math", "pool:code")
    assert recipe.segments == (Segment("all", 0, recipe.segments[-1].stop, (1.0, 2.0)),)


def test_a_base_that_is_a_member_is_no_expert(resolved: Resolve) -> None:
    recipe = resolved("pool: {base: math, members: {math: math, code: code}}\nmerge: {operator: nearswap}").recipe
    assert recipe.sources == ("pool:math", "pool:code")


def test_another_base_may_be_named(resolved: Resolve) -> None:
    recipe = resolved(f"{POOL}merge: {{operator: nearswap, base: code, sources: [base]}}").recipe
    assert recipe.sources == ("pool:code", "pool:base")


def test_sources_may_be_the_base_of_an_operator_without_one(resolved: Resolve) -> None:
    recipe = resolved(f"{POOL}merge: {{operator: slerp, sources: [base, code]}}").recipe
    assert recipe.sources == ("pool:base", "pool:code")


def test_values_follow_tensors(resolved: Resolve, at: Callable[..., dict[str, tuple[float, ...]]]) -> None:
    text = f"""{POOL}
merge:
  operator: linear
  parameters:
    weight:
      math: [{{filter: "*.mlp.*", value: [0, 3]}}, {{value: 7}}]
      code: [{{layers: "1:3", value: 5}}, {{filter: embed, value: 6}}, {{value: 8}}]
"""
    values = at(resolved(text).recipe)
    assert values["embed"] == (7.0, 6.0)
    assert values["head"] == (7.0, 8.0)
    assert [values[f"layers.{layer}.attn.w"] for layer in range(4)] == [(7, 8), (7, 5), (7, 5), (7, 8)]
    assert [values[f"layers.{layer}.mlp.w"] for layer in range(4)] == [(0, 8), (1, 5), (2, 5), (3, 8)]


def test_groups(resolved: Resolve) -> None:
    pool = "pool: {members: {math: math, code: code}, groups: {ends: [embed, head], middle: ['layers*']}}\n"
    recipe = resolved(
        f"{pool}merge: {{operator: slerp, parameters: {{t: {{groups: {{ends: 0.1, middle: 0.2}}}}}}}}"
    ).recipe
    assert [(one.group, one.values) for one in recipe.segments] == [("ends", (0.1,)), ("middle", (0.2,))]


def test_how_a_value_is_written_changes_no_digest(resolved: Resolve) -> None:
    values = ["0.5", "[0.5]", "[0.5, 0.5]", "{math: 0.5, code: [{filter: '*', value: 0.5}]}", "{groups: {all: 0.5}}"]
    ways = [f"parameters: {{weight: {value}}}" for value in values]
    ways += ["options: {normalize: false}", "sources: [math, code]"]
    assert len({resolved(f"{POOL}merge: {{operator: linear, {way}}}").recipe.digest for way in ways}) == 1


def test_recipes_within_become_ancestors_in_order(resolved: Resolve) -> None:
    text = f"""{POOL}
merge: {{operator: linear, sources: [upper, math]}}
recipes:
  upper: {{operator: nearswap, sources: [lower], parameters: {{t: 0.5}}}}
  lower: {{operator: slerp}}
  lost: {{operator: linear}}
"""
    found = resolved(text)
    lower, upper = found.ancestors
    assert (lower.operator, upper.operator) == ("slerp", "nearswap")
    assert upper.sources == ("pool:base", f"recipe:{lower.digest}")
    assert found.recipe.sources == (f"recipe:{upper.digest}", "pool:math")
    assert found.names == {lower.digest: "lower", upper.digest: "upper"}
    assert found.warnings == ("recipes.lost is not used",)


def test_equal_recipes_are_one_ancestor(resolved: Resolve) -> None:
    linear = "{operator: linear}"
    found = resolved(f"{POOL}merge: {{operator: slerp, sources: [a, b]}}\nrecipes: {{a: {linear}, b: {linear}}}")
    assert len(found.ancestors) == 1
    assert len(set(found.recipe.sources)) == 1


@pytest.mark.parametrize("pattern", ["*norm*", "*.MLP.*"])
def test_a_pattern_that_fits_nothing_is_told(resolved: Resolve, pattern: str) -> None:
    case = f"{{filter: '{pattern}', value: 1}}"
    (warning,) = resolved(f"{POOL}merge:\n  operator: slerp\n  parameters:\n    t: [{case}, {{value: 0}}]").warnings
    assert warning == f"line 5: merge.parameters.t: the pattern {pattern!r} fits no merged tensor"
