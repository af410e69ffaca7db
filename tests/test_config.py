import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le
from hypothesis import given
from hypothesis import strategies as st

from evomerge import config, plugins
from evomerge.errors import ConfigError, ResumeError
from evomerge.settings import Choice

GOOD = """\
study: digits
seed: 7
pool:
  members:
    left: models/left
    right: models/right
fitness:
  name: toy
  data: digits
strategy:
  name: toy
  population: 20
splits:
  search: "0:1000"
  selection: "1000:1437"
  report: "1437:1500, 1600:1797"
budget:
  evaluations: 100
"""


@dataclass(frozen=True)
class Step:
    length: Annotated[float, Gt(0), Le(1)] = 0.5
    kind: Literal["long", "short"] = "long"


@dataclass(frozen=True)
class ToySettings:
    population: Annotated[int, Gt(1)] = 10
    scale: Annotated[float, Ge(0)] | None = None
    names: tuple[str, ...] = ()
    step: Step = Step()
    data: str = ""

    def __post_init__(self) -> None:
        if self.population % 2:
            raise ValueError(f"population {self.population} is odd; make it even")


class Toy:
    Settings = ToySettings


@dataclass(frozen=True)
class Straight:
    speed: int = 1
    kind: Literal["straight"] = "straight"


@dataclass(frozen=True)
class Curved:
    kind: Literal["curved"]
    bend: float = 0.5


@dataclass(frozen=True)
class PathSettings:
    path: Straight | Curved = Straight()


class Walk:
    Settings = PathSettings


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's tests name no plugin: `toy` is all there is."""
    known: dict[str, Any] = {"toy": Toy, "walk": Walk}

    def load(group: plugins.Group, name: str) -> Any:
        return known[name] if name in known else real(group, name)

    real = plugins.load
    monkeypatch.setattr(plugins, "strategy", lambda name: load("strategies", name))
    monkeypatch.setattr(plugins, "fitness", lambda name: load("fitness", name))


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.settings_of(text, "study.yaml")
    return str(caught.value).splitlines()


def test_a_good_file() -> None:
    settings = config.settings_of(GOOD)
    assert settings.study == "digits"
    assert list(settings.pool.members) == ["left", "right"]
    assert settings.strategy == Choice("toy", ToySettings(population=20))
    assert settings.splits.report == ((1437, 1500), (1600, 1797))
    assert settings.window == 8
    assert settings.executor.kind == "inline"


def test_a_plugin_may_be_just_its_name() -> None:
    text = GOOD.replace("strategy:\n  name: toy\n  population: 20\n", "strategy: toy\n")
    assert config.settings_of(text).strategy == Choice("toy", ToySettings())


def test_an_empty_section_has_its_defaults() -> None:
    assert config.settings_of(GOOD + "store:\nmerge:\n") == config.settings_of(GOOD)


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WRONG = {
    "unknown key": (
        GOOD + "windw: 8\n",
        ["study.yaml:19: unknown key 'windw'; did you mean 'window'? known keys: study, pool, "],
    ),
    "unknown key in a section": (
        GOOD + "executor:\n  worker: 2\n",
        ["study.yaml:20: unknown key 'worker' in executor; did you mean 'workers'? known keys: kind, workers"],
    ),
    "unknown key of a plugin": (
        change("population", "populaton"),
        ["study.yaml:12: unknown key 'populaton' in strategy; did you mean 'population'? known keys: population, sc"],
    ),
    "unknown key deep in a plugin": (
        change("  population: 20\n", "  step:\n    lenght: 1\n"),
        ["study.yaml:13: unknown key 'lenght' in strategy.step; did you mean 'length'? known keys: length, kind"],
    ),
    "unknown plugin": (
        change("name: toy\n  population", "name: m2n3\n  population"),
        ["study.yaml:11: unknown strategy 'm2n3'; did you mean 'm2n2'? give a registered name ("],
    ),
    "plugin without name": (
        change("  name: toy\n  population", "  population"),
        ["study.yaml:11: strategy needs a name; give one of "],
    ),
    "wrong type": (
        change("population: 20", "population: twenty"),
        ["study.yaml:12: strategy.population is 'twenty'; give a whole number > 1"],
    ),
    "quoted number": (
        change("population: 20", "population: '20'"),
        ["study.yaml:12: strategy.population is '20'; give a whole number > 1"],
    ),
    "not a number": (
        change("population: 20", "scale: .nan"),
        ["study.yaml:12: strategy.scale is '.nan'; give a number >= 0 or nothing (null)"],
    ),
    "infinite number": (
        change("population: 20", "scale: 1e999"),
        ["study.yaml:12: strategy.scale is '1e999'; give a number >= 0"],
    ),
    "out of range": (
        change("  population: 20\n", "  step: {length: 1.5}\n"),
        ["study.yaml:12: strategy.step.length is 1.5; give a number > 0 and <= 1"],
    ),
    "zero budget": (
        change("evaluations: 100", "evaluations: 0"),
        ["study.yaml:18: budget.evaluations is 0; give a whole number > 0"],
    ),
    "wrong choice": (
        GOOD + "telling: sometimes\n",
        ["study.yaml:19: telling is 'sometimes'; give one of asked, comple"],
    ),
    "item of a list": (
        change("population: 20", "names: [a, 3]"),
        ["study.yaml:12: strategy.names[1] is 3; give text"],
    ),
    "no list": (
        change("population: 20", "names: a"),
        ["study.yaml:12: strategy.names is 'a'; give a list, each item t"],
    ),
    "section is no mapping": (
        GOOD + "store: here.db\n",
        ["study.yaml:19: store is 'here.db'; give keys and values below it: url, commit_every"],
    ),
    "missing key": (
        change("study: digits\n", ""),
        ["study.yaml:1: the key 'study' is missing; give text"],
    ),
    "missing section": (
        change("budget:\n  evaluations: 100\n", ""),
        ["study.yaml:1: the key 'budget' is missing; give keys and values below it: evaluations"],
    ),
    "missing key of a section": (
        change("  evaluations: 100\n", ""),
        ["study.yaml:17: budget lacks the key 'evaluations'; give a whole number > 0"],
    ),
    "self-checking settings": (
        change("population: 20", "population: 21"),
        ["study.yaml:11: strategy: population 21 is odd; make it even"],
    ),
    "duplicate key": (
        GOOD + "seed: 8\n",
        ["study.yaml:19: 'seed' is here for the second time (first on line 2); keep one of the two"],
    ),
    "no mapping": ("- a\n- b\n", ["study.yaml:1: the file is a list; a study file is a mapping of keys to values"]),
    "tab": (change("  members", "\tmembers"), ["study.yaml:4: not readable as YAML"]),
    "unclosed": (GOOD + "merge: {mode: table\n", ["study.yaml:20: not readable as YAML"]),
    "alias": (
        GOOD + "objective: *x\n",
        ["study.yaml:19: not readable as YAML (alias *x is not supported); write the v"],
    ),
    "tag": (GOOD + "objective: !!python/name:os.system x\n", ["study.yaml:19: the tag "]),
    "split": (
        change('"0:1000"', '"0-1000"'),
        ["study.yaml:14: splits.search is '0-1000'; give ranges of items such as 0:1000 or 0:100,200:300"],
    ),
    "split is a number": (change('"0:1000"', "1000"), ["study.yaml:14: splits.search is 1000; give ranges"]),
    "empty range": (change('"0:1000"', '"5:5"'), ["study.yaml:14: splits.search has the empty range 5:5"]),
    "empty split": (change('"0:1000"', '""'), ["study.yaml:14: splits.search is empty; name at least one range"]),
    "overlap": (
        change('"1000:1437"', '"900:1437"'),
        ["study.yaml:14: items 900:1000 are in splits.search and in splits.selection; make them disjoint"],
    ),
    "unknown split": (change("selection", "validation"), ["study.yaml:15: unknown key 'validation' in splits; known"]),
    "no search split": (change('  search: "0:1000"\n', ""), ["study.yaml:14: splits lacks the key 'search'"]),
    "no splits": (
        GOOD[: GOOD.index("splits")] + "splits: none\n",
        ["study.yaml:13: splits is 'none'; give a mapping with the keys search"],
    ),
    "environment": (change("seed: 7", "seed: ${HOME}"), ["study.yaml:2: seed is '${HOME}'; give a whole number >= 0"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_names_line_wrong_and_right(case: str) -> None:
    text, expected = WRONG[case]
    found = errors(text)
    for line in expected:
        assert any(one.startswith(line) for one in found), found


def test_all_errors_are_said_at_once_in_order_of_lines() -> None:
    text = change("population: 20", "population: no").replace("seed: 7", "seed: -1") + "budgte: 1\nwindow: 0\n"
    assert [line.split(":")[1] for line in errors(text)] == ["2", "12", "19", "20"]


def test_yaml_is_of_version_1_2() -> None:
    text = change("population: 20", "scale: 1e-3").replace("study: digits", "study: no")
    settings = config.settings_of(text)
    assert settings.study == "no"
    assert settings.strategy.settings.scale == 1e-3
    assert config.settings_of(change('"0:1000"', "10:20")).splits.search == ((10, 20),)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("missing.yaml", None, "there is no study file .*evomerge init"),
        ("folder", "", "is a folder"),
        ("latin.yaml", "study: caf\xe9".encode("latin-1"), "is not UTF-8"),
        ("binary.yaml", b"study: \x00", "character U.0000 is not allowed"),
        ("empty.yaml", b"", "the key 'study' is missing"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | str | None, why: str) -> None:
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        config.read(path)


def test_reading_keeps_text_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD)
    study = config.read(path)
    assert (study.text, study.root, study.settings) == (GOOD, tmp_path, config.settings_of(GOOD))


@given(st.text())
def test_no_text_makes_anything_but_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        config.settings_of(text)


def test_canonical_text_has_defaults_and_keeps_order() -> None:
    sections = config.canonical(config.settings_of(GOOD))
    assert json.loads(sections["strategy"])["settings"]["step"] == {"length": 0.5, "kind": "long"}
    swapped = change(
        "    left: models/left\n    right: models/right\n", "    right: models/right\n    left: models/left\n"
    )
    other = config.canonical(config.settings_of(swapped))
    assert config.digest(sections)["pool"] != config.digest(other)["pool"]
    (order,) = config.differences(sections, other)
    assert str(order) == "pool.members (order of keys): left, right -> right, left"
    assert not order.harmless


CHANGES = [
    ("evaluations: 100", "evaluations: 200", "budget.evaluations: 100 -> 200", True),
    ("evaluations: 100", "evaluations: 50", "budget.evaluations: 100 -> 50", True),
    ("seed: 7", "seed: 8", "seed: 7 -> 8", False),
    ("seed: 7", "seed: 7\nexecutor: {workers: 4}", "executor.workers: 2 -> 4", True),
    ("seed: 7", "seed: 7\nstore: {keep_losses: false}", "store.keep_losses: true -> false", True),
    ("seed: 7", "seed: 7\nfinalists: 3", "finalists: 10 -> 3", True),
    ("seed: 7", "seed: 7\nwindow: 9", "window: 8 -> 9", False),
    ("models/left", "moved/left", 'pool.members.left: "models/left" -> "moved/left"', True),
    ("seed: 7", "seed: 7\nmerge: {mode: table}", 'merge.mode: "auto" -> "table"', False),
    ("population: 20", "population: 22", "strategy.settings.population: 20 -> 22", False),
    ('"0:1000"', '"0:999"', "splits.search: [[0,1000]] -> [[0,999]]", False),
]


@pytest.mark.parametrize(("old", "new", "text", "harmless"), CHANGES)
def test_differences_name_key_old_and_new(old: str, new: str, text: str, harmless: bool) -> None:
    before, after = (config.canonical(config.settings_of(one)) for one in (GOOD, change(old, new)))
    assert [(str(one), one.harmless) for one in config.differences(before, after)] == [(text, harmless)]


def without(sections: dict[str, str], path: str) -> dict[str, str]:
    """The sections as a version would have written them that did not know one key."""
    *parents, key = path.split(".")
    plain = {name: json.loads(text) for name, text in sections.items()}
    holder = plain
    for parent in parents:
        holder = holder[parent]
    del holder[key]
    return {name: config.canonical_text(value) for name, value in plain.items()}


NEW_KEYS = {
    "pool.pad_vocabulary": ("pool", {"pad_vocabulary": 64}),
    "pool.statistics": ("pool", {"statistics": {"left": {"loss": 1.0}}}),
    "merge.mode": ("merge", {"mode": "table"}),
    "window": ("window", 9),
    "executor": ("executor", {"workers": 3}),
    "strategy.settings.step.kind": ("strategy", {"settings": ToySettings(20, step=Step(kind="short"))}),
    "strategy.settings.step": ("strategy", {"settings": ToySettings(20, step=Step(length=0.25))}),
}


@pytest.mark.parametrize("path", NEW_KEYS)
def test_a_key_that_an_earlier_version_did_not_know_had_its_default(path: str) -> None:
    settings = config.settings_of(GOOD)
    sections = config.canonical(settings)
    old = without(sections, path)
    assert old != sections
    assert config.differences(old, sections) == ()
    assert config.stored(old) == settings
    name, changed = NEW_KEYS[path]
    value = replace(getattr(settings, name), **changed) if isinstance(changed, dict) else changed
    (found,) = config.differences(old, config.canonical(replace(settings, **{name: value})))
    assert found.key.startswith(path)


@pytest.mark.parametrize(
    ("path", "key"), [(Straight(3), "kind"), (Straight(), "speed"), (Curved("curved"), "bend"), (Straight(), "")]
)
def test_of_settings_told_apart_by_kind_those_that_were_meant_have_their_defaults(
    path: Straight | Curved, key: str
) -> None:
    settings = replace(config.settings_of(GOOD), strategy=Choice("walk", PathSettings(path)))
    sections = config.canonical(settings)
    old = without(sections, f"strategy.settings.path.{key}".rstrip("."))
    assert config.differences(old, sections) == ()
    assert config.stored(old) == settings


def test_a_key_without_a_default_is_missed() -> None:
    sections = config.canonical(config.settings_of(GOOD))
    (found,) = config.differences(without(sections, "budget.evaluations"), sections)
    assert str(found) == "budget.evaluations: - -> 100"
    with pytest.raises(ResumeError, match=r"stored budget\.evaluations does not fit"):
        config.stored(without(sections, "budget.evaluations"))
    with pytest.raises(ResumeError, match="no section 'budget'"):
        config.stored(without(sections, "budget"))


def test_a_key_that_this_version_does_not_know_is_a_difference() -> None:
    sections = config.canonical(config.settings_of(GOOD))
    old = sections | {"merge": '{"mode":"auto","cache_mb":64,"gone":1}'}
    assert "merge.gone: 1 -> -" in map(str, config.differences(old, sections))


def test_a_plugin_that_is_gone_is_compared_as_it_was_stored() -> None:
    sections = config.canonical(config.settings_of(GOOD))
    old = sections | {"strategy": '{"name":"unheard_of","settings":{"population":20}}'}
    assert 'strategy.name: "unheard_of" -> "toy"' in map(str, config.differences(old, sections))


def test_a_new_member_or_base_is_another_search() -> None:
    settings = config.settings_of(GOOD)
    pools = [
        replace(settings.pool, members={**settings.pool.members, "third": "models/third"}),
        replace(settings.pool, base="models/base"),
    ]
    for pool in pools:
        found = config.differences(config.canonical(settings), config.canonical(replace(settings, pool=pool)))
        assert found
        assert not all(one.harmless for one in found)


@pytest.mark.parametrize(("new", "harmless"), [("moved/x.safetensors", True), (2.0, False), (None, False)])
def test_a_statistics_file_may_move_but_a_number_may_not_change(new: str | float | None, harmless: bool) -> None:
    settings = config.settings_of(GOOD)
    olds: tuple[str | float, ...] = ("x.safetensors",) if isinstance(new, str) else ("x.safetensors", 1.0)
    for old in olds:
        before, after = (
            replace(settings, pool=replace(settings.pool, statistics={} if one is None else {"left": {"fisher": one}}))
            for one in (old, new)
        )
        found = config.differences(config.canonical(before), config.canonical(after))
        assert found
        assert all(one.harmless for one in found) == harmless


def test_nothing_heavy_is_imported_to_read_a_study(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD.replace("toy\n  population: 20", "random").replace("toy\n  data: digits", "unheard_of"))
    code = (
        "import sys; from pathlib import Path; from evomerge import config\n"
        f"try: config.read(Path({str(path)!r}))\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print([m for m in ('torch', 'sqlalchemy', 'ray', 'transformers', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "ConfigError\n[]\n"
