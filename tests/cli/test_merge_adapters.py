"""evomerge merge --adapter: adapters in, an adapter out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.testing.adapters import UNEQUAL, make_pool, random_adapters

POOL = "pool: {base: pool/base.safetensors, members: {one: pool/one, two: pool/two, three: pool/three}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a pool of three adapters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_pool(tmp_path / "pool", random_adapters(UNEQUAL, 1))
    return tmp_path


def recipe(name: str, text: str) -> None:
    Path(name).write_text(f"{POOL}merge: {text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "{operator: lora_cat, parameters: {weight: {one: 0.3, two: -0.7, three: 1.1}}}",
        "{operator: task_arithmetic, parameters: {lambda: {one: 0.3, two: -0.7, three: 1.1}}}",
        "{operator: lora_lego, parameters: {k: 3, lambda: 0.9}, options: {norm: max}}",
    ],
)
def test_the_adapter_makes_the_model_of_its_base(evomerge: Any, folder: Path, text: str) -> None:
    recipe("r.yml", text)
    assert evomerge("merge", "r.yml", "--out", "whole").code == 0
    ended = evomerge("merge", "r.yml", "--out", "out", "--adapter")
    assert (ended.code, ended.out.startswith("wrote out: recipe ")) == (0, True)
    assert "A LoRA of rank" in ended.err
    found = Adapted(Adapter(folder / "out", Checkpoint(folder / "pool" / "base.safetensors")))
    for name, tensor in load_file("whole/model.safetensors").items():
        np.testing.assert_allclose(found.floats(name).reshape(tensor.shape), tensor, rtol=1e-5, atol=1e-5)
    assert "library_name: peft" in Path("out/README.md").read_text()
    again = evomerge("merge", "out/recipe.json", "--pool", "r.yml", "--out", "again", "--adapter")
    assert again.code == 0
    weights = [Path(name, "adapter_model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


def test_a_rank_approximates_what_is_no_adapter(evomerge: Any, folder: Path) -> None:
    recipe("r.yml", "{operator: ties}")
    for more in (("--dry-run",), ()):
        ended = evomerge("merge", "r.yml", "--out", "out", "--adapter", *more)
        assert ended.code == 2
        assert "give a rank to approximate it" in ended.err
        assert not Path("out").exists()
    ended = evomerge("merge", "r.yml", "--out", "out", "--adapter", "--rank", 2)
    assert ended.code == 0
    assert "relative error" in ended.err
    assert json.loads(Path("out/adapter_config.json").read_text())["r"] == 2


def test_a_dry_run_says_what_would_be_written(evomerge: Any, folder: Path) -> None:
    recipe("r.yml", "{operator: lora_cat}")
    ended = evomerge("merge", "r.yml", "--adapter", "--dry-run")
    assert ended.code == 0
    assert "an adapter of base" in ended.out
    ended = evomerge("merge", "r.yml", "--adapter", "--dry-run", "--json")
    assert json.loads(ended.out)["bytes_written"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rank", 3), "give --adapter, too"),
        (("--adapter", "--mergekit"), "give one of them"),
        (("--adapter", "--rank", 0), "Invalid value for '--rank'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    evomerge: Any, folder: Path, options: tuple[Any, ...], message: str
) -> None:
    recipe("r.yml", "{operator: lora_cat}")
    ended = evomerge("merge", "r.yml", "--out", "out", *options)
    assert ended.code == 2
    assert message in ended.err
    assert not Path("out").exists()
