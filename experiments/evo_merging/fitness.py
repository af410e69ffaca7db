"""The fitness: teacher-forced loss on labelled texts of the target, nats per token, one item a text."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from texts import BASE, target

from evomerge.candidate import Score

LENGTH, BATCH = 96, 30


@cache
def tokens(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, LENGTH) token numbers and which of them count, from the start of every text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    rows = torch.zeros((count, LENGTH), dtype=torch.int64)
    there = torch.zeros((count, LENGTH), dtype=torch.bool)
    for at, text in enumerate(target(count)):
        found = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids][:LENGTH]
        rows[at, : len(found)] = torch.tensor(found)
        there[at, : len(found)] = True
    return rows, there


def loss(model: Any, indices: NDArray[np.int64], split: str) -> Score:
    """Mean cross-entropy of every text's tokens, given those before them."""
    rows, there = tokens(530)
    found = []
    for at in range(0, len(indices), BATCH):
        chosen = torch.tensor(indices[at : at + BATCH])
        x, counts = rows[chosen], there[chosen][:, 1:]
        with torch.inference_mode():
            logits = model(input_ids=x).logits[:, :-1]
            each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none")
        found.append((each.view_as(counts) * counts).sum(1) / counts.sum(1))
    losses = torch.cat(found).numpy().astype(np.float64)
    return Score((("loss", float(losses.mean())),), losses, losses)
