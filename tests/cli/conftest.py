"""A small real study for the command line: digits, 60 evaluations, models trained once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evomerge import cli
from evomerge.cli.databases import ENVIRONMENT
from evomerge.store import open_store
from evomerge.store.port import StudyStore

BUDGET = 60


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture(autouse=True)
def no_database_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def evomerge(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process, where torch is loaded but once."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["evomerge", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return call


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `evomerge init` writes, made by the real command."""
    folder = tmp_path_factory.mktemp("template") / "digits"
    subprocess.run([sys.executable, "-m", "evomerge", "init", folder], check=True)
    return folder


def _shorten(file: Path) -> None:
    text = file.read_text()
    assert "evaluations: 2000" in text
    file.write_text(text.replace("evaluations: 2000", f"evaluations: {BUDGET}"))


@pytest.fixture
def study(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file of 60 evaluations that has not run, in the current folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    _shorten(tmp_path / "study.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "study.yaml"


@pytest.fixture(scope="session")
def _finished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    _shorten(folder / "study.yaml")
    subprocess.run([sys.executable, "-m", "evomerge", "run", folder / "study.yaml"], check=True, capture_output=True)
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the same study, finished, as the current one."""
    shutil.copytree(_finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _history(database: Path, name: str = "digits") -> list[object]:
    """All that a search decided and found, comparable with ==."""
    with open_store(f"sqlite:///{database}") as store:
        opened: StudyStore = store.open(name)
        turns = [
            (
                [(one.candidate.number, one.score and one.score.objectives, one.failure) for one in turn.told],
                [(one.number, one.parents, one.recipe.digest) for one in turn.asked],
                turn.changes,
            )
            for turn in opened.turns()
        ]
        ends = [
            [(one.candidate.number, one.score and one.score.objectives) for one in opened.scores(split)]
            for split in ("selection", "report")
        ]
        return [turns, ends, opened.summary().final]


def _told(database: Path, name: str = "digits") -> int:
    """How many results are committed; 0 while there is no such study."""
    if not database.exists():
        return 0
    with open_store(f"sqlite:///{database}") as store:
        return next((one.told for one in store.studies() if one.name == name), 0)


@pytest.fixture
def history() -> Callable[..., list[object]]:
    return _history


@pytest.fixture
def told() -> Callable[..., int]:
    return _told


class Running:
    """A real `evomerge` process."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "evomerge", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=120)
        return Ended(self.process.returncode, out, err)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts real processes, and ends those that are left."""
    running: list[Running] = []

    def begin(*arguments: object) -> Running:
        running.append(Running(*arguments))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.signal(signal.SIGKILL)
            one.process.communicate()
