"""The fitness: accuracy on each task, a set of digits. scikit-learn's 1,797 images, shuffled once."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits

TASKS = {
    "odd": (1, 3, 5, 7, 9),
    "even": (0, 2, 4, 6, 8),
    "first": (0, 1, 2, 3),
    "middle": (4, 5, 6),
    "last": (7, 8, 9),
}


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels in 0..1 and labels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return torch.from_numpy((x[order] / 16).astype(np.float32)), torch.from_numpy(y[order].astype(np.int64))


@cache
def members(task: str) -> torch.Tensor:
    """Which items belong to a task."""
    return torch.isin(digits()[1], torch.tensor(TASKS[task]))


def _accuracies(model: torch.nn.Module, indices: np.ndarray, tasks: tuple[str, ...]) -> dict[str, float]:
    x, y = digits()
    chosen = torch.from_numpy(np.array(indices))
    with torch.inference_mode():
        right = model(x[chosen]).argmax(dim=1) == y[chosen]
    return {task: float(right[members(task)[chosen]].float().mean()) for task in tasks}


def two(model: torch.nn.Module, indices: np.ndarray, split: str) -> dict[str, float]:
    """Odd and even digits."""
    return _accuracies(model, indices, ("odd", "even"))


def three(model: torch.nn.Module, indices: np.ndarray, split: str) -> dict[str, float]:
    """0 to 3, 4 to 6, 7 to 9."""
    return _accuracies(model, indices, ("first", "middle", "last"))
