"""Experts on halves of MNIST, Fashion-MNIST, KMNIST and notMNIST, from one base: the pools of this experiment.

    python experts.py FOLDER [--seed 0]

writes checkpoint folders FOLDER/NAME of small networks (784-100-40; each data set has ten outputs of its own) and the
items of the target, FOLDER/target.npz. The target is to know all MNIST digits and all Fashion-MNIST articles. The pool
of 4 has one expert for each half of these; that of 12 has eight more, of no use, from KMNIST and notMNIST; that of 20
has another eight: the four with shuffled labels, and with noise on every weight. The data are read from the folder that
EVOMERGE_SHARED names, by default ../shared beside the checkout.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evomerge_fitness.mlp import MLP, MLPConfig, save_mlp

SETS = ("mnist", "fashion_mnist", "kmnist", "notmnist")
SIZES = (784, 100, 40)
TRAINED, SEARCH, REPORT = 8000, 200, 1000
"""Of each set's 10,000 test images: the first are trained with; of the target's rest, so many in each split."""

POOLS = (4, 12, 20)


class Task(NamedTuple):
    """What an expert learns: five classes of a set."""

    name: str
    data: int
    half: int
    shuffled: bool = False


TARGETS = [Task(f"{SETS[data]}_{half}", data, half) for data in (0, 1) for half in (0, 1)]
USELESS = [Task(f"{SETS[data]}_{half}_{copy}", data, half) for data in (2, 3) for half in (0, 1) for copy in "ab"]
SHUFFLED = [Task(f"{task.name}_shuffled", task.data, task.half, True) for task in TARGETS]
NOISY = [f"{task.name}_noisy" for task in TARGETS]
MEMBERS = [task.name for task in (*TARGETS, *USELESS, *SHUFFLED)] + NOISY


def read(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """The 10,000 test images of a set, (10000, 784) in 0..1, and their classes."""
    with gzip.open(folder / name / "t10k-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    with gzip.open(folder / name / "t10k-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)


def data_folder() -> Path:
    """The folder of data sets."""
    home = Path(os.environ.get("EVOMERGE_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (home / "data" / "kmnist").is_dir():
        sys.exit(f"no data sets at {home}; set EVOMERGE_SHARED to a folder with data/kmnist and the others")
    return home / "data"


class Trainer:
    """All data, shuffled by the seed, and networks trained on parts of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.sets = []
        for number, name in enumerate(SETS):
            x, y = read(folder, name)
            order = torch.randperm(len(x), generator=self.random)
            self.sets.append((x[order], y[order] + 10 * number))

    def base(self) -> MLP:
        """Trained for a short while on all sets."""
        model = MLP(MLPConfig(SIZES))
        for layer in model.affines():
            layer.weight.data = torch.randn(layer.weight.shape, generator=self.random) / layer.weight.shape[0] ** 0.5
            layer.bias.data = torch.zeros_like(layer.bias)
        x = torch.cat([x[:TRAINED] for x, _ in self.sets])
        y = torch.cat([y[:TRAINED] for _, y in self.sets])
        return self.trained(model, x, y, steps=150)

    def expert(self, base: MLP, task: Task) -> MLP:
        """The base, trained on five classes."""
        x, y = (part[:TRAINED] for part in self.sets[task.data])
        of_task = (y % 10) // 5 == task.half
        x, y = x[of_task], y[of_task]
        if task.shuffled:
            y = y[torch.randperm(len(y), generator=self.random)]
        return self.trained(copy_of(base), x, y, steps=200)

    def noisy(self, expert: MLP) -> MLP:
        """With noise as large as the weights themselves."""
        model = copy_of(expert)
        for parameter in model.parameters():
            parameter.data += parameter.std() * torch.randn(parameter.shape, generator=self.random)
        return model

    def trained(self, model: MLP, x: Tensor, y: Tensor, steps: int) -> MLP:
        """After so many steps of Adam on batches of 64."""
        model.requires_grad_(True)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(steps):
            rows = torch.randint(len(x), (64,), generator=self.random)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        return model.requires_grad_(False)

    def target(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Items that nobody was trained with: first all for the search, then all for the report."""
        parts = [
            (x[start:stop], y[start:stop])
            for start, stop in ((TRAINED, TRAINED + SEARCH), (TRAINED + SEARCH, TRAINED + SEARCH + REPORT))
            for x, y in self.sets[:2]
        ]
        return torch.cat([x for x, _ in parts]).numpy(), torch.cat([y for _, y in parts]).numpy()


def copy_of(model: MLP) -> MLP:
    copy = MLP(model.config)
    copy.load_state_dict(model.state_dict())
    return copy


def write_pool(folder: Path, seed: int) -> None:
    """The base, all members and the target's items."""
    trainer = Trainer(data_folder(), seed)
    models = {"base": trainer.base()}
    for task in (*TARGETS, *USELESS, *SHUFFLED):
        models[task.name] = trainer.expert(models["base"], task)
    models |= {name: trainer.noisy(models[name.removesuffix("_noisy")]) for name in NOISY}
    for name, model in models.items():
        save_mlp(folder / name, model.state_dict(), SIZES)
    x, y = trainer.target()
    np.savez(folder / "target.npz", x=x, y=y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    write_pool(given.folder, given.seed)


if __name__ == "__main__":
    main()
