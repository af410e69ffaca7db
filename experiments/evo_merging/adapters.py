"""Train the pool: one LoRA adapter of rank 4 per text, over stories260K. Some minutes on two cores.

python experiments/evo_merging/adapters.py [FOLDER, default experiments/evo_merging/pool]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from texts import BASE, pool
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
STEPS, BATCH, LENGTH, RANK = 150, 16, 96, 4
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def batches(texts: list[str], seed: int) -> torch.Tensor:
    """(STEPS, BATCH, LENGTH) tokens, cut at random from all texts one after the other."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    stream = np.concatenate(
        [[tokenizer.bos_token_id, *tokenizer(t, add_special_tokens=False).input_ids] for t in texts]
    )
    starts = np.random.default_rng(seed).integers(0, len(stream) - LENGTH, (STEPS, BATCH))
    return torch.from_numpy(stream[starts[..., None] + np.arange(LENGTH)])


def train(texts: list[str], seed: int, folder: Path) -> float:
    """Write an adapter and return its mean loss over the last ten steps."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LAYERS, task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for tokens in batches(texts, seed):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.save_pretrained(folder)
    return float(np.mean(losses[-10:]))


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pool"
    for seed, (name, texts) in enumerate(pool().items()):
        if not (folder / name / "adapter_model.safetensors").exists():
            print(f"{name}: {train(texts, seed, folder / name):.2f} nats per token", flush=True)


if __name__ == "__main__":
    main()
