from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.candidate import Recipe, Segment
from evomerge.errors import MeasureError, PoolError
from evomerge.measure.activations import activations
from evomerge.measure.files import save
from evomerge.measure.fisher import fisher
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings

TOKENS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}


def models(folder: Path) -> list[Any]:
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
        found.append(LlamaForCausalLM(LlamaConfig(vocab_size=11, tie_word_embeddings=True, **sizes)))
        found[-1].save_pretrained(folder / f"m{seed}")
    return found


def built(folder: Path, kind: str, operator: str, values: tuple[float, ...]) -> np.ndarray[Any, Any]:
    statistics = {name: {kind: f"{name}-{kind}.safetensors"} for name in ("m0", "m1")}
    pool = ModelPool.open(PoolSettings(members={"m0": "m0", "m1": "m1"}, statistics=statistics), folder)  # type: ignore[arg-type]
    segments = tuple(Segment(group.name, 0, group.size, values) for group in pool.groups)
    builder = Builder(pool, "table")
    vector = builder.resolve(Recipe(operator, ("pool:m0", "pool:m1"), segments))
    return np.concatenate([builder.read(vector, slot, 0, slot.size) for slot in pool.layout.slots])


def test_a_merge_finds_what_was_measured(tmp_path: Path) -> None:
    for seed, model in enumerate(models(tmp_path)):
        home = tmp_path / f"m{seed}"
        assert save(tmp_path / f"m{seed}-fisher.safetensors", fisher(model, [TOKENS]), home) == ()
        left = save(tmp_path / f"m{seed}-activations.safetensors", activations(model, [TOKENS]), home)
        assert left == ("model.embed_tokens.weight",)
    assert set(Checkpoint(tmp_path / "m0-fisher.safetensors").entries) == set(Checkpoint(tmp_path / "m0").entries)
    ends = [built(tmp_path, "fisher", "fisher", values) for values in ((1.0, 0.0, 1e-6), (0.0, 1.0, 1e-6))]
    mean = built(tmp_path, "fisher", "fisher", (0.5, 0.5, 1e-6))
    assert ((np.minimum(*ends) <= mean + 1e-6) & (mean - 1e-6 <= np.maximum(*ends))).all()
    assert np.abs(mean - (ends[0] + ends[1]) / 2).max() > 1e-3
    held = built(tmp_path, "activations", "aim", (0.4,))
    assert np.linalg.norm(held - ends[0]) < np.linalg.norm(ends[1] - ends[0])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    models(tmp_path)
    return tmp_path / "m0"


def test_another_models_numbers_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"such as '0.weight'"):
        save(tmp_path / "x.safetensors", {"0.weight": np.ones(3, dtype=np.float32)}, checkpoint)
    with pytest.raises(PoolError, match="no checkpoint"):
        save(tmp_path / "x.safetensors", {}, tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "words"), [("there.safetensors", "exists"), ("none/x.safetensors", "cannot write")])
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "there.safetensors").write_text("mine")
    before = sorted(tmp_path.iterdir())
    measured = {"model.norm.weight": np.ones(8, dtype=np.float32)}
    with pytest.raises(MeasureError, match=words):
        save(tmp_path / name, measured, checkpoint)
    assert sorted(tmp_path.iterdir()) == before
