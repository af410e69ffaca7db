"""The demo's two seeds: under-trained digit classifiers, one for the labels 0 to 4, one for 5 to 9.

``python -m evomerge_fitness.digits OUT`` writes the checkpoint folders ``OUT/low`` and ``OUT/high``. Made as the M2N2
paper's digits experiment makes its pair (arXiv 2508.16204): an MLP 64-256-10 drawn from N(0, 0.01^2), then ten Adam
steps on all of its own labels at once, so that each seed knows its five digits and never names another.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evomerge.errors import ConfigError, EvomergeError
from evomerge.fitness import Splits

if TYPE_CHECKING:
    from torch import Generator, Tensor

LAYER_SIZES = (64, 256, 10)
SEARCH = ((0, 1437),)
_SEEDS = {"low": range(5), "high": range(5, 10)}
_STEPS, _RATE, _SCALE = 10, 3e-3, 0.01


@dataclass(frozen=True)
class Seed:
    """A seed model that was written, and its accuracy on the training items of its own and of the other labels."""

    folder: Path
    own: float
    others: float


def train_seeds(folder: Path, seed: int = 0, search: tuple[tuple[int, int], ...] = SEARCH) -> tuple[Seed, Seed]:
    """Train and write both seeds, on items of the ``search`` ranges only (never selection or report items).

    Raises:
        ConfigError: ranges that are empty or beyond the data, or hold no item of some half of the labels.
    """
    import torch

    from evomerge_fitness.mlp import save_mlp

    x, y = _items(search)
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name, labels in _SEEDS.items():
        mine = torch.isin(y, torch.tensor(labels))
        if not mine.any():
            raise ConfigError(f"the search items {search} have no digit {labels[0]} to {labels[-1]}; give more items")
        tensors = _train(x[mine], y[mine], generator)
        save_mlp(folder / name, tensors, LAYER_SIZES)
        right = _forward(tensors, x).argmax(1) == y
        made.append(Seed(folder / name, right[mine].float().mean().item(), right[~mine].float().mean().item()))
    return made[0], made[1]


def _items(ranges: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    import torch
    from sklearn.datasets import load_digits

    splits = Splits(ranges)
    splits.check()
    x, y = load_digits(return_X_y=True)
    splits.check_against(len(y), "digits")
    chosen = np.concatenate([np.arange(start, stop) for start, stop in ranges])
    return torch.from_numpy(x[chosen].astype(np.float32)), torch.from_numpy(y[chosen].astype(np.int64))


def _train(x: Tensor, y: Tensor, generator: Generator) -> dict[str, Tensor]:
    import torch

    inputs, hidden, classes = LAYER_SIZES
    shapes = {
        "layers.0.weight": (inputs, hidden),
        "layers.0.bias": (hidden,),
        "layers.1.weight": (hidden, classes),
        "layers.1.bias": (classes,),
    }
    tensors = {
        name: (torch.randn(shape, generator=generator) * _SCALE).requires_grad_() for name, shape in shapes.items()
    }
    optimizer = torch.optim.Adam(tensors.values(), lr=_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(_forward(tensors, x), y)
        torch.autograd.backward(loss)
        optimizer.step()
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _forward(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = (x @ tensors["layers.0.weight"] + tensors["layers.0.bias"]).relu()
    return hidden @ tensors["layers.1.weight"] + tensors["layers.1.bias"]


def _range(text: str) -> tuple[int, int]:
    start, _, stop = text.partition(":")
    return int(start), int(stop)


def main(arguments: list[str] | None = None) -> int:
    """Write the seeds and print how good they are. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evomerge_fitness.digits", description=train_seeds.__doc__)
    parser.add_argument("out", type=Path, help="folder to write low/ and high/ into")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default 0)")
    parser.add_argument(
        "--search", type=_range, nargs="+", default=SEARCH, metavar="START:STOP", help="items to train on (0:1437)"
    )
    options = parser.parse_args(arguments)
    try:
        seeds = train_seeds(options.out, options.seed, tuple(options.search))
    except EvomergeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for seed in seeds:
        print(f"{seed.folder}: {seed.own:.1%} of its own digits right, {seed.others:.1%} of the others")
    return 0


if __name__ == "__main__":
    sys.exit(main())
