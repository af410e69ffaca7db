"""Pools of more than plain checkpoints, from the study file to the exported model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.testing.checkpoints import save_checkpoint

MEMBERS = "    low: models/low    # knows 0 to 4\n    high: models/high  # knows 5 to 9\n"


def pool(study: Path, text: str) -> Path:
    """Other members, and further pool settings below them."""
    old = study.read_text()
    assert MEMBERS in old
    study.write_text(old.replace(MEMBERS, text))
    return study


@pytest.fixture
def adapter(study: Path) -> Path:
    random = np.random.default_rng(0)
    shapes = {
        "layers.1.lora_A": (2, 256),
        "layers.1.lora_B": (10, 2),
        "layers.0.lora_A": (2, 64),
        "layers.0.lora_B": (256, 2),
    }
    tensors = {
        f"base_model.model.{name}.weight": random.normal(0, 0.1, shape).astype("f4") for name, shape in shapes.items()
    }
    save_checkpoint(study.parent / "lora" / "adapter_model.safetensors", tensors)
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": True, "base_model_name_or_path": "low"}
    (study.parent / "lora" / "adapter_config.json").write_text(json.dumps(told))
    return study.parent / "lora"


def test_a_study_over_adapters(evomerge: Any, study: Path, adapter: Path) -> None:
    pool(study, "    low: models/low\n    tuned: lora\n  base: models/low\n  grouping: layer\n")
    checked = evomerge("check", study)
    assert (checked.code, checked.err.count("warning")) == (0, 0)
    assert "LoRA of rank 2 over low" in checked.out
    assert "layer_0 16,640, layer_1 2,570" in checked.out
    assert evomerge("run", study).code == 0
    assert evomerge("export", "digits", "out").code == 0
    told = json.loads(Path("out/recipe.json").read_text())
    assert told["sources"] == ["low", "tuned"]
    assert Checkpoint(Path("out")).entries.keys() == Checkpoint(Path("models/low")).entries.keys()
    exact = evomerge("export", "digits", "lora_out", "--adapter")
    assert exact.code == 2
    assert "give a rank" in exact.err
    written = evomerge("export", "digits", "lora_out", "--adapter", "--rank", 2)
    assert written.code == 0
    assert "A LoRA of rank 2 in 2 tensors" in written.err
    base, merged = Checkpoint(Path("models/low")), Checkpoint(Path("out"))
    found = Adapted(Adapter(Path("lora_out"), base))
    told = json.loads(Path("lora_out/recipe.json").read_text())["adapter"]
    for name in found.adapter.modules:
        delta, left = (merged.floats(name) - one.floats(name) for one in (base, found))
        assert told["errors"].get(name, 0.0) == pytest.approx(np.linalg.norm(left) / np.linalg.norm(delta), abs=1e-3)
    content = bytearray((adapter / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (adapter / "adapter_model.safetensors").write_bytes(content)
    refused = evomerge("resume", study, "--budget", 70)
    assert refused.code == 5
    assert "pool content tuned" in refused.err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("    low: models/low\n    tuned: lora\n", "pool member tuned: "),
        ("    low: models/low\n    tuned: models/high+lora+x\n", "there is no checkpoint at"),
        ("    low: hf:a/b/c\n", "hf:a/b/c is no name of a model on the hub"),
        ("    low: ~nobody-here/x\n", "there is no home folder for '~nobody-here/x'"),
        (f"{MEMBERS}  grouping: blocks\n", "pool.grouping is 'blocks'; give a whole number"),
        (f"{MEMBERS}  grouping: blocks:3\n", "wants 3 blocks, but only 2 layers are merged"),
        (f"{MEMBERS}  grouping: importance:2\n", "pool.grouping by importance needs pool.base"),
        (f'{MEMBERS}  layers: {{low: ["0:3"]}}\n', "'0:3' is no range of the 2 layers"),
        (f'{MEMBERS}  layers: {{low: ["0:1"]}}\n', "high: has 2 layers instead of 1"),
        (f"{MEMBERS}  vocabulary: union\n", "has no tokenizer.json"),
        (f"{MEMBERS}  pad_vocabulary: 0\n", "pad_vocabulary is 0"),
        (f"{MEMBERS}  statistics: {{low: {{fisher: x.safetensors}}}}\n", "pool.statistics.low.fisher: there is no"),
        (
            f"{MEMBERS}  statistics: {{base: {{loss: 1.0}}}}\n",
            "pool.statistics names 'base', but the pool has low, high",
        ),
    ],
)
def test_what_is_wrong_with_a_pool_is_named(
    evomerge: Any, study: Path, adapter: Path, settings: str, words: str
) -> None:
    found = evomerge("check", pool(study, settings))
    assert found.code == 2
    assert words in " ".join(found.err.split())
