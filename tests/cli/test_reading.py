"""Commands that only read: status, show, lineage, verify, export."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

HEAVY = ("torch", "transformers", "sklearn", "ray", "matplotlib", "cma")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status"], ["status", "--json"]])
def test_nothing_heavy_is_imported(finished: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom evomerge.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"


def test_verify_and_show_need_no_torch(finished: Path) -> None:
    block = "import sys\nfor name in ('torch', 'transformers', 'sklearn', 'safetensors'): sys.modules[name] = None\n"
    for command in ("verify", "show", "lineage"):
        code = f"{block}sys.argv = ['evomerge', {command!r}]\nfrom evomerge.cli import main\nmain()"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["check", "run", "init"])
def test_without_torch_the_extra_is_named(finished: Path, command: str) -> None:
    target = "new" if command == "init" else "study.yaml"
    Path("study.db").unlink()
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'sklearn', 'safetensors'): sys.modules[name] = None\n"
        f"sys.argv = ['evomerge', {command!r}, {target!r}]\nfrom evomerge.cli import main\nmain()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert 'pip install "evomerge[worker]"' in ended.stderr
    assert "Traceback" not in ended.stderr


def test_exit_codes_are_in_the_help(evomerge: Any) -> None:
    out = evomerge("--help").out
    for code in ("0", "1", "2", "3", "4", "5", "6", "7", "130"):
        assert f" {code} " in out


def test_status(evomerge: Any, finished: Path) -> None:
    head, line = evomerge("status").out.splitlines()
    assert head.split()[:3] == ["STUDY", "STATUS", "TOLD"]
    assert line.split()[:3] == ["digits", "finished", "60"]
    document = json.loads(evomerge("status", "study.db", "--json").out)
    assert document["studies"][0]["told"] == 60


def test_the_database_may_come_from_the_environment(
    evomerge: Any, finished: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert evomerge("status").code == 2
    monkeypatch.setenv("EVOMERGE_DB", str(finished / "study.db"))
    assert "digits" in evomerge("status").out
    assert evomerge("show", "digits").code == 0


def test_several_databases_or_studies_must_be_named(evomerge: Any, finished: Path) -> None:
    evomerge("run", "study.yaml", "--name", "second", "--budget", 10)
    several = evomerge("show")
    assert (several.code, "name one of: digits, second" in several.err) == (3, True)
    nearest = evomerge("show", "digit")
    assert (nearest.code, "did you mean 'digits'?" in nearest.err) == (3, True)
    Path("other.db").touch()
    both = evomerge("status")
    assert (both.code, "several databases here (other.db, study.db)" in both.err) == (2, True)


def test_show(evomerge: Any, finished: Path) -> None:
    out = evomerge("show").out
    for text in ("finished, last written", "60 of 60", "m2n2, seed 42", "maximize accuracy", "low, high", "coverage"):
        assert text in out
    assert "final" in out
    document = json.loads(evomerge("show", "digits", "--json").out)
    assert document["settings"]["budget"] == {"evaluations": 60}
    assert len(document["candidates"]) >= 10


def test_show_a_candidate(evomerge: Any, finished: Path) -> None:
    out = evomerge("show", "--candidate", 0).out
    assert "candidate #0 of digits" in out
    assert "pool:low" in out
    document = json.loads(evomerge("show", "-c", 5, "--json").out)
    assert document["number"] == 5
    assert document["scores"]["search"]["accuracy"] > 0
    missing = evomerge("show", "-c", 1000)
    assert (missing.code, "1000" in missing.err) == (3, True)


def test_lineage(evomerge: Any, finished: Path) -> None:
    assert "#0 seed" in evomerge("lineage").out
    document = json.loads(evomerge("lineage", "-c", 20, "--json").out)
    assert document["relatives"][0]["number"] == 20
    assert evomerge("lineage", "--picture", "tree.svg").code == 0
    assert Path("tree.svg").read_text().startswith("<?xml")
    wrong = evomerge("lineage", "--picture", "tree.docx")
    assert (wrong.code, ".png, .svg, .pdf" in wrong.err) == (2, True)
    nowhere = evomerge("lineage", "--picture", "nowhere/tree.png")
    assert (nowhere.code, "cannot write nowhere/tree.png" in nowhere.err) == (2, True)


def test_verify_says_what_it_proved(evomerge: Any, finished: Path) -> None:
    out = evomerge("verify").out
    assert "60 candidates asked" in out
    assert "The scores were taken from the database, not computed again." in out
    assert json.loads(evomerge("verify", "--json").out)["told"] == 60


def tamper(statement: str) -> None:
    with closing(sqlite3.connect("study.db")) as database, database:
        assert database.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE evomerge_scores SET items = zeroblob(length(items)) WHERE split = 'search' AND number = 30", "turn"),
        ("UPDATE evomerge_snapshots SET digest = 'x' || substr(digest, 2)", "the strategy's state after turn"),
        ("UPDATE evomerge_studies SET final = 0", "the final candidate is #0, but the scores choose #"),
    ],
)
def test_verify_finds_the_first_difference(evomerge: Any, finished: Path, statement: str, where: str) -> None:
    tamper(statement)
    ended = evomerge("verify")
    assert ended.code == 5
    assert "first difference: " in ended.err
    assert where in ended.err


def test_export_is_the_candidate(evomerge: Any, finished: Path) -> None:
    ended = evomerge("export", "digits", "out")
    assert ended.code == 0, ended.err
    card = Path("out/README.md").read_text()
    for text in (
        "| search | 1437 | accuracy |",
        "| report | 180 |",
        "- low: `",
        "torch: `",
        "study: digits",
        "Mean weight",
    ):
        assert text in card
    # the exported folder scores exactly as the candidate did
    final = json.loads(evomerge("show", "--json").out)["candidates"][0]
    text = Path("study.yaml").read_text().replace("low: models/low", "low: out").replace("study: digits", "study: back")
    Path("back.yaml").write_text(text)
    scores = json.loads(evomerge("check", "back.yaml", "--json").out)["estimate"]["scores"]
    assert scores["low"]["accuracy"] == final["search"]


def test_export_of_a_seed_is_that_member(evomerge: Any, finished: Path) -> None:
    assert evomerge("export", "digits", "out", "--candidate", 0).code == 0
    ours, theirs = load_file("out/model.safetensors"), load_file("models/low/model.safetensors")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_export_refuses(evomerge: Any, finished: Path) -> None:
    exists = evomerge("export", "digits", "models")
    assert (exists.code, "exists and is not empty" in exists.err) == (2, True)
    dtype = evomerge("export", "digits", "out", "--dtype", "float12")
    assert (dtype.code, "unknown dtype 'float12'" in dtype.err) == (2, True)
    assert not Path("out").exists()


def test_export_refuses_another_pool(evomerge: Any, study: Path) -> None:
    evomerge("run", study, "--budget", 3)
    Path("models/low/model.safetensors").write_bytes(Path("models/high/model.safetensors").read_bytes())
    changed = evomerge("export", "digits", "out")
    assert (changed.code, "pool content of low is not what the study was made with" in changed.err) == (5, True)
    assert not Path("out").exists()
