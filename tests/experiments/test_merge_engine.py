"""The measuring tools of the merge engine's experiment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.merge.checkpoint import Checkpoint
from experiments.merge_engine import make_pool

MEASURE = Path(make_pool.__file__).with_name("measure.py")


@pytest.fixture
def _tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(make_pool.SHAPES, "tiny", (64, 96, 2, 4, 2))
    monkeypatch.setattr(make_pool, "PIECE", 1000)


@pytest.mark.usefixtures("_tiny_shape")
def test_a_pools_bytes_depend_on_neither_threads_nor_shards(tmp_path: Path) -> None:
    whole = make_pool.make(tmp_path, "tiny", 2, threads=1)
    cut = make_pool.make(tmp_path, "tiny", 2, shard_gb=0.001, threads=4)
    assert len(list((cut / "base").glob("*.safetensors"))) > 1
    digests = {name: Checkpoint(whole / name).digest() for name in ("base", "expert0", "expert1")}
    assert {name: Checkpoint(cut / name).digest() for name in digests} == digests
    assert len(set(digests.values())) == 3


@pytest.mark.usefixtures("_tiny_shape")
def test_a_pool_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_pool, "write_tokenizer", lambda folder: folder.joinpath("no", "such").write_text(""))
    with pytest.raises(FileNotFoundError):
        make_pool.make(tmp_path, "tiny", 1)
    assert not list((tmp_path / "tiny").iterdir())


def test_the_named_pools_have_the_stated_sizes() -> None:
    sizes = {size: sum(plan.nbytes // 2 for plan in make_pool.tensors(size)) for size in make_pool.SHAPES}
    assert sizes == {"0.45b": 464_052_480, "1.1b": 1_100_048_384, "3b": 3_426_473_600, "7b": 6_738_415_616}
    assert len(make_pool.tensors("0.45b")) == len(make_pool.tensors("1.1b")) == 201


def test_measure_counts_children_and_output(tmp_path: Path) -> None:
    child = "import time; held = bytearray(b'x' * 50_000_000); time.sleep(0.3)"
    parent = (
        "import pathlib, subprocess, sys; held = bytearray(b'x' * 50_000_000);"
        f"subprocess.run([sys.executable, '-c', {child!r}]); pathlib.Path({str(tmp_path / 'out')!r}).mkdir();"
        f"pathlib.Path({str(tmp_path / 'out' / 'file')!r}).write_bytes(bytes(1234)); sys.exit(3)"
    )
    result = tmp_path / "result.json"
    command = [sys.executable, MEASURE, "--out", tmp_path / "out", "--json", result, "--", sys.executable, "-c", parent]
    assert subprocess.run(command, check=False).returncode == 3
    found = json.loads(result.read_text())
    assert (found["exit_code"], found["output_bytes"]) == (3, 1234)
    assert found["anon_bytes"] > 100_000_000
    assert found["wall"] > 0.3
    assert found["user"] > 0
