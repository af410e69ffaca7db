"""Plugins that are named within a plugin's settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Gt

from evomerge import config, plugins
from evomerge.errors import ConfigError, PluginError
from evomerge.settings import Choice

GOOD = """\
study: chain
pool:
  members: {left: models/left}
fitness: leaf
strategy:
  name: outer
  first:
    name: leaf
    size: 3
  rest:
    - leaf
    - {name: outer, first: leaf}
splits: {search: "0:10"}
budget: {evaluations: 100}
"""


@dataclass(frozen=True)
class LeafSettings:
    size: Annotated[int, Gt(0)] = 1


@dataclass(frozen=True)
class OuterSettings:
    first: Choice
    rest: tuple[Choice, ...] = ()
    maybe: Choice | None = None


class Leaf:
    Settings = LeafSettings


class Outer:
    Settings = OuterSettings


@pytest.fixture(autouse=True)
def leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"leaf": Leaf, "outer": Outer}

    def load(name: str) -> Any:
        if name not in known:
            raise PluginError(f"unknown {name!r}")
        return known[name]

    monkeypatch.setattr(plugins, "strategy", load)
    monkeypatch.setattr(plugins, "fitness", load)


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.settings_of(text, "study.yaml")
    return str(caught.value).splitlines()


def test_settings_of_inner_plugins_are_their_own() -> None:
    inner = Choice("outer", OuterSettings(Choice("leaf", LeafSettings())))
    settings = config.settings_of(GOOD).strategy.settings
    assert settings == OuterSettings(Choice("leaf", LeafSettings(3)), (Choice("leaf", LeafSettings()), inner))
    assert config.settings_of(change("  rest:", "  maybe: leaf\n  rest:")).strategy.settings.maybe == Choice(
        "leaf", LeafSettings()
    )


def test_every_plugin_is_listed() -> None:
    names = [one.name for one in config.choices(config.settings_of(GOOD).strategy)]
    assert names == ["outer", "leaf", "leaf", "outer", "leaf"]


def test_what_is_stored_reads_back_equal() -> None:
    settings = config.settings_of(GOOD)
    assert config.stored(config.canonical(settings)) == settings


def test_a_key_that_an_earlier_version_did_not_know_has_its_default_at_any_depth() -> None:
    sections = config.canonical(config.settings_of(GOOD))
    plain = json.loads(sections["strategy"])
    del plain["settings"]["rest"][1]["settings"]["first"]["settings"]["size"]
    del plain["settings"]["rest"][1]["settings"]["rest"]
    old = sections | {"strategy": config.canonical_text(plain)}
    assert config.stored(old) == config.settings_of(GOOD)
    assert config.differences(old, sections) == ()


def test_a_difference_inside_changes_the_search() -> None:
    then, now = (config.canonical(config.settings_of(text)) for text in (GOOD, change("size: 3", "size: 4")))
    assert [(str(one), one.harmless) for one in config.differences(then, now)] == [
        ("strategy.settings.first.settings.size: 3 -> 4", False)
    ]


WRONG = {
    "value": (change("size: 3", "size: 0"), "study.yaml:9: strategy.first.size is 0; give a whole number > 0"),
    "key": (change("size: 3", "sise: 3"), "study.yaml:9: unknown key 'sise' in strategy.first; did you mean 'size'?"),
    "plugin": (change("- leaf", "- lear"), "study.yaml:11: unknown 'lear'"),
    "no name": (
        change("name: leaf\n    size: 3", "size: 3"),
        "study.yaml:8: strategy.first needs a name; give one of ",
    ),
    "no plugin": (change("- leaf", "- 3"), "study.yaml:11: strategy.rest[0] needs a name; give one of"),
    "in a list": (
        change("first: leaf}", "first: {name: leaf, size: no}}"),
        "study.yaml:12: strategy.rest[1].first.size is 'no'; give a whole number > 0",
    ),
    "missing": (
        change("{name: outer, first: leaf}", "outer"),
        "study.yaml:12: strategy.rest[1] lacks the key 'first'; give a name and its settings",
    ),
    "no list": (
        change("  rest:\n    - leaf\n    - {name: outer, first: leaf}\n", "  rest: 3\n"),
        "study.yaml:10: strategy.rest is 3; give a list, each item a name and its settings",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_inside_names_its_line(case: str) -> None:
    text, expected = WRONG[case]
    assert any(line.startswith(expected) for line in errors(text)), errors(text)


def test_errors_of_several_plugins_are_said_at_once() -> None:
    assert len(errors(change("size: 3", "size: 0").replace("- leaf", "- lear"))) == 2
