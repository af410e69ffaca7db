"""The landscapes: pools of small real models, and published tables turned into one; another one for each seed.

A landscape says what a strategy is told (`Problem`) and scores its candidates with the project's own engine and
fitness, without a database around it.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe, Score
from evomerge.errors import EvomergeError
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Missing, Task
from evomerge.fitness import Splits
from evomerge.lineage import ancestry
from evomerge.merge.pool import ModelPool
from evomerge.settings import Choice, MergeSettings, PoolSettings
from evomerge.strategy import Group, Objective, Problem
from evomerge_fitness.arrays import ArraySettings
from evomerge_fitness.digits import train_seeds
from evomerge_fitness.mlp import save_mlp

SHARED = Path(os.environ.get("EVOMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
TASKS = ("mnist", "fashion_mnist", "kmnist", "notmnist")
LAYERS = (196, 64, 40)  # images at half their size; each task has ten outputs of its own
SEARCH = 250  # items of each task


@dataclass(frozen=True)
class Landscape:
    """``score`` gives a candidate's score, or None if it cannot be built."""

    problem: Problem
    score: Callable[[Candidate], Score | None]

    def evaluate(self, candidate: Candidate) -> Evaluated:
        """What comes of a candidate."""
        score = self.score(candidate)
        return Evaluated(candidate, failure="not built") if score is None else Evaluated(candidate, score)


def of_pool(root: Path, pool: PoolSettings, data: str, items: int, objective: str) -> Landscape:
    """The landscape of a model pool and the first items of a data set of arrays; the folder's name ends in its seed."""
    seed, settings = int(root.name.rpartition("-")[2]), Choice("arrays", ArraySettings(data=data))
    evaluator = EvaluatorFactory(root, pool, MergeSettings("dense"), settings, Splits(((0, items),)))()
    opened = ModelPool.open(pool, root)
    objectives = [Objective("accuracy"), Objective("cross_entropy", "minimize")]
    objectives.sort(key=lambda one: one.name != objective)
    known: dict[str, Recipe] = {}

    def score(candidate: Candidate) -> Score | None:
        known[candidate.recipe.digest] = candidate.recipe
        try:
            answer = evaluator(Task(candidate))
            if isinstance(answer, Missing):
                found = ancestry(candidate.recipe, answer.cached, lambda some: {one: known[one] for one in some})
                answer = evaluator(Task(candidate), found)
        except EvomergeError:
            return None
        return answer if isinstance(answer, Score) else None

    problem = Problem(
        seed, opened.members, opened.groups, tuple(objectives), items, opened.base, losses=True, parts=True
    )
    return Landscape(problem, score)


# --- scikit-learn's digits ----------------------------------------------------------------------------------------


def digits(work: Path, seed: int, grouping: str, objective: str) -> Landscape:
    """Two digit classifiers that know five digits each: 2 coefficients, or 8 with one for each tensor."""
    folder = work / f"digits-{seed}"
    if not (folder / "high").exists():
        train_seeds(folder, seed)
    pool = PoolSettings({"low": "low", "high": "high"}, grouping=grouping)
    return of_pool(folder, pool, "digits", 1437, objective)


# --- four image tasks ---------------------------------------------------------------------------------------------


def images(work: Path, seed: int, grouping: str, objective: str) -> Landscape:
    """Experts of four image tasks and a noisy copy of each over one base, mixed around it: 8 or 32 coefficients."""
    folder = work / f"images-{seed}"
    if not (folder / "items.npz").exists():
        _train_images(folder, seed)
    members = {f"{task}{kind}": f"{task}{kind}" for kind in ("", "-noisy") for task in TASKS}
    pool = PoolSettings(members, base="base", grouping=grouping)
    return of_pool(folder, pool, "items.npz", SEARCH * len(TASKS), objective)


def _read(path: Path) -> NDArray[np.uint8]:
    with gzip.open(path) as file:
        raw = file.read()
    axes = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _task(name: str, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """4,000 images of a task at half size, in 0..1, and labels among the task's ten."""
    folder = SHARED / "data" / name
    images, labels = (_read(folder / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    chosen = random.permutation(len(labels))[:4000]
    half = images[chosen].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return half.reshape(-1, 196).astype(np.float32), labels[chosen].astype(np.int64) + 10 * TASKS.index(name)


def _train_images(folder: Path, seed: int) -> None:
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    data = {task: _task(task, random) for task in TASKS}
    x, y = (np.concatenate([data[task][part][:SEARCH] for task in TASKS]) for part in (0, 1))
    training = {
        task: (torch.from_numpy(a[2 * SEARCH :]), torch.from_numpy(b[2 * SEARCH :])) for task, (a, b) in data.items()
    }
    mixed = tuple(torch.cat([training[task][part][:1000] for task in TASKS]) for part in (0, 1))
    base = _fit(_fresh(generator), mixed, 60, generator)
    save_mlp(folder / "base", base, LAYERS)
    for task in TASKS:
        expert = _fit(base, training[task], 120, generator)
        save_mlp(folder / task, expert, LAYERS)
        noisy = {
            name: t + 0.5 * (t - base[name]).std() * torch.randn(t.shape, generator=generator)
            for name, t in expert.items()
        }
        save_mlp(folder / f"{task}-noisy", noisy, LAYERS)
    np.savez(folder / "items.npz", x=x, y=y)


def _fresh(generator: torch.Generator) -> dict[str, torch.Tensor]:
    tensors = {}
    for layer, (inputs, outputs) in enumerate(pairwise(LAYERS)):
        tensors[f"layers.{layer}.weight"] = torch.randn((inputs, outputs), generator=generator) * (2 / inputs) ** 0.5
        tensors[f"layers.{layer}.bias"] = torch.zeros(outputs)
    return tensors


def _fit(
    tensors: Mapping[str, torch.Tensor], data: tuple[torch.Tensor, ...], steps: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Adam steps of 128 items."""
    own = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    optimizer = torch.optim.Adam(own.values(), lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(len(data[1]), (128,), generator=generator)
        hidden = (data[0][rows] @ own["layers.0.weight"] + own["layers.0.bias"]).relu()
        logits = hidden @ own["layers.1.weight"] + own["layers.1.bias"]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, data[1][rows]).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in own.items()}


# --- published tables ---------------------------------------------------------------------------------------------


def table(seed: int) -> Landscape:
    """CLIP ViT-B/32 on eight tasks, a quadratic in eight coefficients fitted to published accuracies.

    For each task the logit of the accuracy, least squares with a ridge over a bootstrap of the table's points, which
    makes each seed another landscape. The points lie on the diagonal, near corners and on two paths of gradients, so
    away from those it is a made-up function of the right shape, not CLIP. Items are the tasks.
    """
    x, accuracies = _points()
    rows = np.random.default_rng(seed).integers(len(x), size=len(x))
    ridge = 1e-2 * np.eye(_features(x).shape[1])
    ridge[0, 0] = 0.0
    features, logits = _features(x[rows]), np.log(accuracies[rows] / (1 - accuracies[rows]))
    weights = np.linalg.solve(features.T @ features + ridge, features.T @ logits)

    def score(candidate: Candidate) -> Score | None:
        recipe = candidate.recipe
        shares = (0.0,) * (recipe.operator == "task_arithmetic")  # the base's own
        at = dict(zip(recipe.sources, (*shares, *recipe.segments[0].values), strict=True))
        place = np.array([[at.get(f"pool:t{i}", 0.0) for i in range(8)]])
        accuracy = 1 / (1 + np.exp(-(_features(np.clip(place, 0, 1)) @ weights)[0]))
        return Score((("accuracy", float(accuracy.mean())),), accuracy, 1 - accuracy)

    names = tuple(f"t{i}" for i in range(8))
    problem = Problem(seed, names, (Group("all", 1000),), (Objective("accuracy"),), 8, "base", losses=True)
    return Landscape(problem, score)


def _points() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with (SHARED / "data/merge_landscapes/vit_b32_ta8_points.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["merge"] == "task_arithmetic"]
    x = [[float(value) for key, value in line.items() if key.startswith("lambda_")] for line in lines]
    accuracies = [[float(v) for k, v in line.items() if k.startswith("acc_") and k != "acc_mean"] for line in lines]
    return np.array(x), np.clip(np.array(accuracies), 1e-3, 1 - 1e-3)


def _features(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1, the coefficients, and their products of two."""
    upper = np.triu_indices(x.shape[1])
    return np.column_stack([np.ones(len(x)), x, (x[:, :, None] * x[:, None, :])[:, upper[0], upper[1]]])
