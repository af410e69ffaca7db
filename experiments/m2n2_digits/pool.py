"""The published experiment's two under-trained seed models as checkpoint folders, and the study files' variants.

The seed vectors are those of the reference implementation (``reference/make_reference.py``); they come with the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evomerge_fitness.mlp import save_mlp

HERE = Path(__file__).parent
SEEDS = HERE.parents[1] / "tests" / "data" / "m2n2_digits_seeds.npz"
SIZES = (64, 256, 10)
ORDER = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")

VARIANTS = {
    "m2n2": ("from_seeds", {}),
    "no_attraction": ("from_seeds", {"attraction": False}),
    "no_split_point": ("from_seeds", {"split_point": False}),
    "ga": ("from_seeds", {"alpha": 0, "attraction": False}),
    "per_segment": ("from_seeds", {"angle": "per_segment"}),
    "scratch_m2n2": ("from_scratch", {}),
    "scratch_no_crossover": ("from_scratch", {"crossover": False}),
}
"""Name: study file, and the strategy settings that differ from it."""


def tensors_of(vector: np.ndarray) -> dict[str, torch.Tensor]:
    """The MLP's tensors, cut from the flat vector."""
    shapes = ((64, 256), (256,), (256, 10), (10,))
    pieces = np.split(vector.astype(np.float32), np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return {
        name: torch.from_numpy(piece.reshape(shape).copy())
        for name, piece, shape in zip(ORDER, pieces, shapes, strict=True)
    }


def write_pool(folder: Path) -> None:
    """``folder/low`` knows the digits 0 to 4, ``folder/high`` 5 to 9."""
    vectors = np.load(SEEDS)
    for name, key in (("low", "seed_1"), ("high", "seed_2")):
        save_mlp(folder / name, tensors_of(vectors[key]), SIZES)


def study_text(variant: str, seed: int, budget: int, folder: Path, *, losses: bool = False, threads: int = 1) -> str:
    """The study file of one run; ``losses`` computes and keeps the loss of every item, too."""
    import yaml

    file, changes = VARIANTS[variant]
    study = yaml.safe_load((HERE / f"{file}.yaml").read_text())
    study["study"] = f"{variant}-{seed}"
    study["seed"] = seed
    study["budget"]["evaluations"] = budget
    study["strategy"].update(changes)
    study["pool"]["members"] = {name: str(folder / name) for name in study["pool"]["members"]}
    study["fitness"]["losses"] = losses
    study["executor"]["threads"] = threads
    return yaml.safe_dump(study, sort_keys=False)
