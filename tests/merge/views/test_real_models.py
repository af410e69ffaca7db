"""What views make of a real language model, loaded and run by transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.candidate import Recipe, Segment
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def stories(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared / "stories260K" / "hf", tmp_path / "stories"))


def exported(pool: ModelPool, out: Path, weights: dict[str, float]) -> Any:
    pool.check()
    sources = tuple(f"pool:{name}" for name in weights)
    segments = tuple(Segment(group.name, 0, group.size, tuple(weights.values())) for group in pool.groups)
    export(Builder(pool), Recipe("linear", sources, segments), (), out, card="")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    return model.eval()


def logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return found


def test_a_stack_of_layers_runs(stories: Path, tmp_path: Path) -> None:
    members = {"x": str(stories)}
    pool = ModelPool.open(PoolSettings(members, layers={"x": ("0:3", "2:5", "4:5")}), tmp_path)
    model = exported(pool, tmp_path / "out", {"x": 1.0})
    assert model.config.num_hidden_layers == len(model.model.layers) == 7
    assert torch.isfinite(logits(model, [1, 2, 3])).all()
    again = exported(
        ModelPool.open(PoolSettings(members, layers={"x": ("0:5",)}), tmp_path), tmp_path / "same", {"x": 1.0}
    )
    original = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    assert torch.equal(logits(again, [1, 2, 3]), logits(original, [1, 2, 3]))


def test_more_tokens_leave_what_was_known_alone(stories: Path, tmp_path: Path) -> None:
    """The same model under a tokenizer with one token more and its first words swapped."""
    other = Path(shutil.copytree(stories, tmp_path / "other"))
    table = json.loads((other / "tokenizer.json").read_text())
    one, two = (token for token, number in table["model"]["vocab"].items() if number in (400, 401))
    vocabulary = table["model"]["vocab"]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    table["added_tokens"].append(table["added_tokens"][-1] | {"id": 512, "content": "<new>"})
    (other / "tokenizer.json").write_text(json.dumps(table))
    source = Checkpoint(stories)
    order = [*range(400), 401, 400, *range(402, 512), 7]
    arrays = {name: source.floats(name).reshape(entry.shape) for name, entry in source.entries.items()}
    arrays |= {name: arrays[name][order] for name in (EMBED, HEAD) if name in arrays}
    (other / "model.safetensors").unlink()
    save_checkpoint(other / "model.safetensors", arrays)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 513}))

    members = {"x": str(stories), "y": str(other)}
    pool = ModelPool.open(PoolSettings(members, vocabulary="union"), tmp_path)
    model = exported(pool, tmp_path / "out", {"x": 0.5, "y": 0.5})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids("<new>") == 512
    assert model.config.vocab_size == len(tokenizer) == 513
    original = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    found, expected = (logits(one, [1, 400, 401, 5]) for one in (model, original))
    torch.testing.assert_close(found[:, :512], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 512], expected[:, 7], rtol=1e-4, atol=1e-4)
    assert np.array_equal(
        model.get_input_embeddings().weight[512].detach(), original.get_input_embeddings().weight[7].detach()
    )
