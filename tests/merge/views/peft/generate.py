"""Makes the folders beside this file with the PEFT library, whose merges `test_adapted.py` compares with.

Each holds a base, an adapter with random factors as ``save_pretrained`` writes it, and what ``merge_and_unload`` makes
of the two. Made with peft 0.21.2 and torch 2.13; to make them again: ``pip install peft && python generate.py``.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

HERE = Path(__file__).parent


class Block(nn.Module):
    """Some of everything that has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(6, 6)
        self.k = nn.Linear(6, 4, bias=False)
        self.up = Conv1D(9, 6)
        self.square = Conv1D(6, 6)
        self.norm = nn.LayerNorm(6)


class Net(nn.Module):
    """Two blocks between embeddings and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(3, 5, kernel_size=(2, 3))
        self.head = nn.Linear(6, 7, bias=False)


CASES: dict[str, dict[str, Any]] = {
    "linear": {"r": 2, "lora_alpha": 6, "target_modules": ["q", "k", "head"]},
    "patterns": {
        "r": 3,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["q", "k"],
        "rank_pattern": {"layers.0.q": 1, "k": 2},
        "alpha_pattern": {r"layers\.1\..*": 5},
    },
    "transposed": {"r": 2, "lora_alpha": 3, "target_modules": ["up", "square"], "fan_in_fan_out": True},
    "embedding": {"r": 2, "lora_alpha": 3, "target_modules": ["embed", "q"]},
    "convolution": {"r": 2, "lora_alpha": 3, "target_modules": ["conv"]},
    "dora": {"r": 2, "lora_alpha": 3, "target_modules": ["q", "k"], "use_dora": True},
    "dora_transposed": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["up", "square"],
        "fan_in_fan_out": True,
        "use_dora": True,
    },
    "dora_embedding": {"r": 2, "lora_alpha": 3, "target_modules": ["embed"], "use_dora": True},
    "dora_convolution": {"r": 2, "lora_alpha": 3, "target_modules": ["conv"], "use_dora": True},
    "bias": {"r": 2, "lora_alpha": 3, "target_modules": ["q", "k"], "bias": "lora_only"},
    "every_bias": {"r": 2, "lora_alpha": 3, "target_modules": ["q"], "bias": "all"},
    "factor_bias": {"r": 2, "lora_alpha": 3, "target_modules": ["q"], "lora_bias": True},
    "saved": {"r": 2, "lora_alpha": 3, "target_modules": ["q"], "modules_to_save": ["head", "norm"]},
}


def make(name: str, settings: dict[str, Any]) -> None:
    """One case."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    net = Net()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    base = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    model = get_peft_model(net, LoraConfig(**settings))
    for key, parameter in model.named_parameters():
        if "lora_" in key or parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
            if "magnitude" in key:
                parameter.data.abs_()
    model.save_pretrained(folder, save_embedding_layers=name == "embedding")
    (folder / "README.md").unlink()
    save_file(base, folder / "base.safetensors")
    merged = model.merge_and_unload().state_dict()
    save_file({key: tensor.contiguous() for key, tensor in merged.items()}, folder / "merged.safetensors")


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case, CASES[case])
