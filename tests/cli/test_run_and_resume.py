import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evomerge.store import open_store

CALLABLE = """\
study: mine
pool: {members: {low: models/low, high: models/high}}
fitness: {name: callable, function: "mine.py:score", gets: recipe}
splits: {search: "0:10"}
strategy: {name: random}
budget: {evaluations: 6}
"""


def test_run_to_the_end(evomerge: Any, study: Path) -> None:
    ended = evomerge("run", "study.yaml")
    assert ended.code == 0, ended.err
    assert "finished: budget spent (60 evaluations" in ended.out
    assert "final candidate #" in ended.out
    assert "60/60" in ended.err


def test_two_runs_are_equal_and_the_second_needs_another_name(evomerge: Any, finished: Path, history: Any) -> None:
    again = evomerge("run", "study.yaml")
    assert again.code == 3
    assert "is already in" in again.err
    assert "evomerge resume study.yaml" in again.err
    ended = evomerge("run", "study.yaml", "--name", "second", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert (document["study"], document["status"], document["told"]) == ("second", "finished", 60)
    assert set(document["scores"]) == {"search", "selection", "report"}
    assert history(finished / "study.db", "second") == history(finished / "study.db")


def test_resuming_what_is_finished_says_so(evomerge: Any, finished: Path) -> None:
    ended = evomerge("resume", "study.yaml")
    assert (ended.code, "is finished after 60 evaluations; --budget N" in ended.out) == (0, True)


def test_a_larger_budget_goes_on(evomerge: Any, finished: Path) -> None:
    ended = evomerge("resume", "--budget", 70, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["told"] == 70
    events = json.loads(evomerge("show", "--json").out)["events"]
    assert "budget.evaluations: 60 -> 70" in [event["text"] for event in events]
    smaller = evomerge("resume", "study.yaml", "--budget", 65)
    assert (smaller.code, "already asked for 70 evaluations" in smaller.err) == (5, True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_pauses_and_resume_is_exact(  # noqa: PLR0917 - fixtures
    evomerge: Any, study: Path, start: Any, told: Any, history: Any, number: int
) -> None:
    database = study.parent / "study.db"
    study.write_text(study.read_text().replace("evaluations: 60", "evaluations: 800"))
    running = start("run", study)
    running.wait_until(lambda: told(database) > 20)
    running.signal(number)
    ended = running.end()
    assert ended.code == 130, ended.err
    assert "stopping after the current turn; Ctrl-C again stops at once" in ended.err
    assert "paused: stopped on request after" in ended.out
    assert f"evomerge resume {study}" in ended.out
    assert "paused" in evomerge("status").out
    assert evomerge("resume", study).code == 0
    assert evomerge("run", study, "--name", "whole").code == 0
    assert history(database) == history(database, "whole")


@pytest.mark.slow
def test_killed_then_resumed_without_the_file(evomerge: Any, study: Path, start: Any, told: Any, history: Any) -> None:
    database = study.parent / "study.db"
    study.write_text(study.read_text().replace("evaluations: 60", "evaluations: 800"))
    running = start("run", study)
    running.wait_until(lambda: told(database) > 20)
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    assert "interrupted" in evomerge("status").out
    assert evomerge("resume").code == 0
    assert evomerge("run", study, "--name", "whole").code == 0
    assert history(database) == history(database, "whole")


@pytest.mark.slow
def test_twice_ctrl_c_stops_at_once(study: Path, start: Any, told: Any, evomerge: Any) -> None:
    study.write_text(CALLABLE)
    Path("mine.py").write_text("import time\ndef score(recipe, indices, split):\n    time.sleep(60)\n    return 1.0\n")
    running = start("run", study)
    running.wait_until((study.parent / "study.db").exists)
    running.wait_until(lambda: "running" in evomerge("status").out)
    running.signal(signal.SIGINT)
    assert "stopping" in running.process.stderr.readline() + running.process.stderr.readline()
    running.signal(signal.SIGINT)
    ended = running.end()
    assert ended.code == 130
    assert "interrupted; what was told is saved" in ended.err
    assert "paused" in evomerge("status").out


def test_another_driver_holds_the_study(evomerge: Any, finished: Path) -> None:
    with open_store(f"sqlite:///{finished / 'study.db'}") as store:
        store.open("digits", write=True)
        refused = evomerge("resume", "--budget", 62)
        assert refused.code == 3
        assert f"process {os.getpid()}" in refused.err
        assert "--steal" in refused.err
        assert evomerge("resume", "--budget", 62, "--steal").code == 0


CHANGES = [
    ("seed: 42", "seed: 43", "seed: 42 -> 43   (changes the search)", False),
    ("population: 20", "population: 10", "strategy.settings.population: 20 -> 10", False),
    ("evaluations: 60", "evaluations: 80", "budget.evaluations: 60 -> 80", True),
    ("seed: 42", "seed: 42\nexecutor: {threads: 2}", "executor.threads: 1 -> 2", True),
]


@pytest.mark.parametrize(("old", "new", "line", "harmless"), CHANGES)
def test_a_changed_file_is_refused(  # noqa: PLR0917 - parameters
    evomerge: Any, finished: Path, old: str, new: str, line: str, harmless: bool
) -> None:
    interrupted(finished / "study.db")
    file = finished / "study.yaml"
    file.write_text(file.read_text().replace(old, new))
    refused = evomerge("resume", file)
    assert refused.code == 5
    assert line in refused.err
    assert ("--allow-changed" in refused.err) == harmless
    assert evomerge("resume", file, "--allow-changed").code == (0 if harmless else 5)


def interrupted(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE evomerge_studies SET status = 'paused'")


def test_a_study_goes_on_that_began_before_a_key_was_known(evomerge: Any, finished: Path) -> None:
    interrupted(finished / "study.db")
    with closing(sqlite3.connect(finished / "study.db")) as connection, connection:
        sections = json.loads(connection.execute("SELECT settings FROM evomerge_studies").fetchone()[0])
        pool = json.loads(sections["pool"])
        del pool["pad_vocabulary"]
        before = json.dumps({**sections, "pool": json.dumps(pool)})
        connection.execute("UPDATE evomerge_studies SET settings = ?", [before])
    file = finished / "study.yaml"
    text = file.read_text()
    file.write_text(text.replace("  members:\n", "  pad_vocabulary: 8\n  members:\n"))
    assert "pool.pad_vocabulary: 1 -> 8   (changes the search)" in evomerge("resume", file).err
    file.write_text(text)
    assert evomerge("resume", file).code == 0


def test_another_pool_content_is_refused(evomerge: Any, finished: Path) -> None:
    interrupted(finished / "study.db")
    shutil.copy("models/low/model.safetensors", "models/high/model.safetensors")
    refused = evomerge("resume", "study.yaml", "--allow-changed")
    assert refused.code == 5
    assert "pool content high: " in refused.err


def test_other_versions_are_named(evomerge: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(finished / "study.db")
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    refused = evomerge("resume")
    assert refused.code == 5
    assert "version python: 3.11" in refused.err or "version python: 3.1" in refused.err
    assert "-> 3.99.0" in refused.err
    assert evomerge("resume", "--allow-changed").code == 0
    assert "3.99.0" in evomerge("show").out


def test_a_moved_folder_goes_on(evomerge: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = finished.parent / f"{finished.name}-moved"
    finished.rename(moved)
    monkeypatch.chdir(moved)
    assert evomerge("resume", "study.yaml", "--budget", 64).code == 0
    assert evomerge("resume", "--budget", 66).code == 0


def test_a_fitness_that_always_fails_ends_without_a_result(evomerge: Any, study: Path) -> None:
    study.write_text(CALLABLE)
    Path("mine.py").write_text("def score(recipe, indices, split):\n    raise ValueError('no luck')\n")
    ended = evomerge("run", study)
    assert ended.code == 7
    assert "stopped: no candidate could be scored" in ended.out
    shown = evomerge("show").out
    assert "6 of 6 (6 failed)" in shown
    assert "6 x ValueError: no luck (mine.py:2 in score)" in shown


def test_a_fitness_that_sometimes_fails_only_spends_budget(evomerge: Any, study: Path) -> None:
    study.write_text(CALLABLE)
    Path("mine.py").write_text(
        "def score(recipe, indices, split):\n"
        "    value = recipe.segments[0].values[0]\n"
        "    return float('nan') if value < 0.5 else value\n"
    )
    ended = evomerge("run", study, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["told"] == 6
    assert 0 < document["failed"] < 6
    assert document["best"] >= 0.5


def test_a_defect_keeps_its_traceback(study: Path, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study.write_text(CALLABLE)
    Path("mine.py").write_text("raise ZeroDivisionError('in the user''s own file')\n")
    ended = start("run", study).end()
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert not Path("study.db").exists()
