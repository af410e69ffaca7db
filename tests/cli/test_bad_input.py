"""Every wrong input of a study: one clear message, exit code 2, nothing written."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def member(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def change_file(file: Path) -> None:
        path = file.parent / "models/high/model.safetensors"
        tensors = {name: value.copy() for name, value in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return change_file


def not_a_number(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.1.bias"][3] = np.nan


def another_shape(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.1.bias"] = np.zeros(11, np.float32)


def one_less(tensors: dict[str, np.ndarray]) -> None:
    del tensors["layers.1.bias"]


def truncated(file: Path) -> None:
    path = file.parent / "models/high/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_safetensors(file: Path) -> None:
    (file.parent / "models/high/model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"junk")


def pickled(file: Path) -> None:
    folder = file.parent / "models/high"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def no_folder(file: Path) -> None:
    (file.parent / "models/high").rename(file.parent / "models/elsewhere")


def labels(file: Path) -> None:
    np.savez(file.parent / "mine.npz", x=np.zeros((1797, 64), np.float32), y=np.full(1797, 10))
    replaced("data: digits", "data: mine.npz")(file)


WRONG = {
    "strategy": (replaced("name: m2n2", "name: m2n22"), "unknown strategy 'm2n22'; did you mean 'm2n2'?"),
    "fitness": (replaced("name: arrays", "name: array"), "unknown fitness 'array'; did you mean 'arrays'?"),
    "objective": (
        replaced("seed: 42", "objective: acuracy"),
        "did you mean 'accuracy'? it has accuracy, cross_entropy",
    ),
    "splits beyond the data": (replaced("1617:1797", "1617:1800"), "digits has only 1797"),
    "overlapping splits": (replaced("1437:1617", "1400:1617"), "items 1400:1437 are in splits.search and in"),
    "empty split": (replaced('"0:1437"', '""'), "splits.search is empty"),
    "zero budget": (replaced("evaluations: 60", "evaluations: 0"), "budget.evaluations is 0; give a whole number > 0"),
    "too small a pool": (replaced("    high: models/high", "#"), "m2n2 from seeds needs at least 2 pool members"),
    "missing member": (no_folder, "models/high"),
    "nan": (member(not_a_number), "high: tensor 'layers.1.bias' is nan at index [3]"),
    "shape": (member(another_shape), "high: tensor 'layers.1.bias' has shape [11] instead of [10]"),
    "missing tensor": (member(one_less), "high: has no tensor 'layers.1.bias'"),
    "truncated": (truncated, "model.safetensors"),
    "not safetensors": (not_safetensors, "model.safetensors"),
    "pickle": (pickled, "pickle"),
    "labels": (labels, "label"),
    "no data": (replaced("data: digits", "data: nowhere.npz"), "nowhere.npz"),
    "database": (replaced("seed: 42", "store: {url: 'mysql://x/y'}"), "mysql"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(evomerge: Any, study: Path, case: str) -> None:
    change, message = WRONG[case]
    change(study)
    before = sorted(study.parent.rglob("*"))
    ended = evomerge("run", study)
    assert message in ended.err
    assert ended.err.count("evomerge: ") == 1
    assert (ended.code, ended.out) == (3 if case == "database" else 2, "")
    assert sorted(study.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nowhere.yaml"], 2, "there is no study file nowhere.yaml; 'evomerge init' writes one"),
        (["check", "."], 2, ". is a folder; name the study file in it"),
        (["resume", "study.yaml"], 3, "there is no study called 'digits'"),
        (["status"], 2, "there is no .db file in"),
        (["status", "nowhere.db"], 2, "there is no database nowhere.db; 'evomerge run' makes one"),
        (["show", "--db", "study.yaml"], 3, "there is no study in this database"),
        (["run", "study.yaml", "--budget", "0"], 2, "--budget"),
        (["rum"], 2, "rum"),
    ],
)
def test_wrong_arguments(evomerge: Any, study: Path, arguments: list[str], code: int, message: str) -> None:
    ended = evomerge(*arguments)
    assert ended.code == code
    assert message in ended.err
    assert not list(Path().glob("*.db"))


def test_a_foreign_file_is_no_database(evomerge: Any, study: Path) -> None:
    Path("other.db").write_text("not a database at all" * 100)
    ended = evomerge("status", "other.db")
    assert ended.code == 3
    assert "other.db" in ended.err


def test_a_newer_schema_is_refused(evomerge: Any, finished: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect("study.db")) as database, database:
        database.execute("UPDATE evomerge_alembic_version SET version_num = '9999'")
    ended = evomerge("status")
    assert ended.code == 3
    assert "9999" in ended.err
    assert json.loads(evomerge("check", "study.yaml", "--json").out)["study"] == "digits"
