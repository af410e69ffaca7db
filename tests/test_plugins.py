import subprocess
import sys
from pathlib import Path

import pytest

from evomerge import plugins
from evomerge.errors import PluginError

MODULE = """
from evomerge.fitness import Fitness
from evomerge.strategy import Strategy

class Mine(Strategy):
    Settings = State = object
    def start(self): ...
    def ask(self, state, room): ...
    def tell(self, state, evaluated): ...
    def population(self, state): ...
    def finalists(self, state): ...

class NoStrategy: ...
"""


def install(site: Path, distribution: str, points: dict[str, str], group: str = "evomerge.strategies") -> None:
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strange_strategies.py").write_text(MODULE)
    return tmp_path


@pytest.fixture(autouse=True)
def forget() -> object:
    yield
    for name in ("strange_strategies", "broken_strategies"):
        sys.modules.pop(name, None)


def test_built_ins_are_found_like_anyone_elses() -> None:
    assert {"m2n2", "random", "cma"} <= set(plugins.names("strategies"))
    assert {"arrays", "callable"} <= set(plugins.names("fitness"))
    assert {"linear", "slerp", "task_arithmetic"} <= set(plugins.names("operators"))


def test_a_strangers_distribution_is_listed_and_loaded(site: Path) -> None:
    install(site, "stranger", {"mine": "strange_strategies:Mine"})
    assert "mine" in plugins.names("strategies")
    assert "strange_strategies" not in sys.modules
    assert plugins.strategy("mine").__name__ == "Mine"


def test_two_distributions_with_one_name_are_both_named(site: Path) -> None:
    install(site, "stranger", {"mine": "strange_strategies:Mine"})
    install(site, "other-one", {"mine": "elsewhere:Mine"})
    with pytest.raises(PluginError, match=r"other-one \(elsewhere:Mine\) and stranger \(strange_strategies:Mine\)"):
        plugins.load("strategies", "mine")
    assert plugins.names("strategies").count("mine") == 1


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(PluginError, match=r"unknown strategy 'm2n3'; did you mean 'm2n2'\?.*cma, .*m2n2, .*random"):
        plugins.load("strategies", "m2n3")


def test_module_and_name_need_no_registration(site: Path) -> None:
    assert plugins.strategy("strange_strategies:Mine").__name__ == "Mine"


def test_a_folder_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "strange_strategies.py").write_text(MODULE)
    plugins.allow(tmp_path)
    plugins.allow(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
    assert plugins.strategy("strange_strategies:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_package.module:Name", "there is no module 'no_such_package'"),
        ("strange_strategies:Mime", "did you mean 'Mine'"),
        ("strange_strategies:NoStrategy", "derived from evomerge.strategy.Strategy"),
        (".relative:Name", "not of the form"),
        (":Name", "not of the form"),
        ("strange_strategies:", "not of the form"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(site: Path, name: str, why: str) -> None:
    with pytest.raises(PluginError, match=why):
        plugins.strategy(name)


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("raise ModuleNotFoundError('no torch', name='torch')", r'pip install "evomerge\[worker\]"'),
        ("raise ModuleNotFoundError('no ray', name='ray.util')", r'pip install "evomerge\[ray\]"'),
        ("import surely_not_installed", "install what it needs: No module named 'surely_not_installed'"),
        ("from json import no_such_thing", "cannot import name"),
    ],
)
def test_a_failing_import_says_what_to_install(site: Path, line: str, cure: str) -> None:
    (site / "broken_strategies.py").write_text(line)
    install(site, "stranger", {"broken": "broken_strategies:Any"})
    with pytest.raises(PluginError, match=cure):
        plugins.load("strategies", "broken")


def test_listing_imports_no_plugin() -> None:
    code = (
        "import sys; from evomerge import plugins; plugins.names('strategies'); plugins.names('fitness');"
        "print([m for m in sys.modules if m.startswith(('evomerge_', 'torch', 'sqlalchemy', 'pydantic'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
