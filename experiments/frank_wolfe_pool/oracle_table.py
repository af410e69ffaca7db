"""Which oracle chooses Frank-Wolfe's vertex well? A toy world where the true slopes are known.

Twelve experts, small networks fine-tuned from a common base, each for a task of its own. In each of 100 trials the
objective is the mean loss of three tasks, at a random mixture of the experts. An oracle sees m items and names the
expert towards which the loss falls most steeply; the truth is the gradient on 9,000 other items. Printed are the share
of trials in which it names the right one (by chance: .08), and the regret: how far the named slope is from the
steepest, as a share of the range of slopes.

    python oracle_table.py [--worlds 3] [--json oracle_table.json]

It takes a few seconds a world. The choices are made by the functions that the strategy ``frank_wolfe`` uses.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge_strategies import frank_wolfe_race as races
from evomerge_strategies.frank_wolfe_steps import vertices

Floats = NDArray[np.float64]
Items = tuple[Floats, NDArray[np.int64]]

SIZES = (20, 32, 5)
TASKS, CHOSEN, TRIALS, TRUTH = 12, 3, 100, 9000
SIZES_OF_SAMPLES = (30, 100, 300)
EPSILONS = (0.02, 0.1, 0.3, 1.0)
SHAPES = [shape for n, m in pairwise(SIZES) for shape in ((n, m), (m,))]
ENDS = np.cumsum([int(np.prod(shape)) for shape in SHAPES])


def tensors(theta: Floats) -> list[Floats]:
    """W1, b1, W2, b2 of a flat vector."""
    return [part.reshape(shape) for part, shape in zip(np.split(theta, ENDS[:-1]), SHAPES, strict=True)]


def logits(theta: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Logits and hidden activations."""
    w1, b1, w2, b2 = tensors(theta)
    hidden = np.tanh(x @ w1 + b1)
    return hidden @ w2 + b2, hidden


def losses(theta: Floats, items: Items) -> Floats:
    """Cross-entropy of each item."""
    x, y = items
    z, _ = logits(theta, x)
    z -= z.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])


def errors(theta: Floats, items: Items) -> Floats:
    """1 for each item that is wrong."""
    x, y = items
    return np.asarray(logits(theta, x)[0].argmax(axis=1) != y, dtype=np.float64)


def gradient(theta: Floats, items: Items) -> Floats:
    """Of the mean cross-entropy."""
    x, y = items
    z, hidden = logits(theta, x)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1.0
    p /= len(y)
    back = (p @ tensors(theta)[2].T) * (1.0 - hidden**2)
    return np.concatenate([(x.T @ back).ravel(), back.sum(axis=0), (hidden.T @ p).ravel(), p.sum(axis=0)])


class World:
    """Twelve tasks, the base and the experts."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        shared = [self.random.standard_normal(shape) / np.sqrt(shape[0]) for shape in SHAPES]
        self.centres = 0.7 * self.random.standard_normal((TASKS, SIZES[0]))
        self.teachers = [
            np.concatenate([(w + 0.9 * w.std() * self.random.standard_normal(w.shape)).ravel() for w in shared])
            for _ in range(TASKS)
        ]
        start = np.concatenate([(0.3 * self.random.standard_normal(shape)).ravel() for shape in SHAPES])
        self.base = self.trained(start, lambda: self.items(range(TASKS), 16))
        self.experts = np.array([self.expert(task) for task in range(TASKS)])

    def items(self, tasks: Sequence[int], each: int) -> Items:
        """So many items of each task."""
        x = [self.centres[task] + self.random.standard_normal((each, SIZES[0])) for task in tasks]
        y = [logits(self.teachers[task], rows)[0].argmax(axis=1) for task, rows in zip(tasks, x, strict=True)]
        return np.concatenate(x), np.concatenate(y)

    def expert(self, task: int) -> Floats:
        """The base trained on 64 items of one task, again and again."""
        own = self.items([task], 64)
        return self.trained(self.base, lambda: own)

    def trained(self, theta: Floats, batch: Callable[[], Items]) -> Floats:
        """After 400 steps of gradient descent."""
        for _ in range(400):
            theta = theta - 0.5 * gradient(theta, batch())
        return theta

    def accuracy(self, theta: Floats, task: int) -> float:
        """On 2,000 items of a task."""
        return 1.0 - float(errors(theta, self.items([task], 2000)).mean())


def oracles() -> dict[str, Callable[[Floats, Floats, Floats, Items], Floats]]:
    """By name: scores of the experts at some weights, lowest is chosen."""

    def inner(weights: Floats, models: Floats, theta: Floats, items: Items) -> Floats:
        return (models - theta) @ gradient(theta, items)

    def cosine(weights: Floats, models: Floats, theta: Floats, items: Items) -> Floats:
        """The released program's: cosines with the raw weights, summed over tensors."""
        g = tensors(gradient(theta, items))
        pairs = [[(a.ravel(), b.ravel()) for a, b in zip(g, tensors(one), strict=True)] for one in models]
        return np.array([sum(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pair) for pair in pairs])

    def probes(signal: Callable[[Floats, Items], Floats], epsilon: float) -> Callable[..., Floats]:
        def oracle(weights: Floats, models: Floats, theta: Floats, items: Items) -> Floats:
            race = races.begin(weights, epsilon)
            found = [signal((races.probe(weights, *place, epsilon) @ models)[0], items) for place in races.places(race)]
            race = races.note(race, signal(theta, items), found, len(items[1]))
            return races.slopes(race, weights)[0][0]

        return oracle

    found: dict[str, Callable[..., Floats]] = {"gradient, inner product": inner, "gradient, cosine": cosine}
    for name, signal in (("loss", losses), ("accuracy", errors)):
        found |= {f"{name} probes, eps {epsilon:g}": probes(signal, epsilon) for epsilon in EPSILONS}
    return found


def measure(world: World) -> dict[str, dict[int, tuple[float, float]]]:
    """Top-1 and regret of each oracle by number of items."""
    right: dict[tuple[str, int], list[tuple[bool, float]]] = {}
    models = np.vstack([world.experts, world.base])
    for _ in range(TRIALS):
        tasks = world.random.choice(TASKS, CHOSEN, replace=False)
        weights = np.zeros((1, TASKS + 1))
        weights[0, tasks] += 0.7 * world.random.dirichlet(np.ones(CHOSEN))
        weights[0, :TASKS] += 0.1 * world.random.dirichlet(np.ones(TASKS))
        weights[0, TASKS] = 1.0 - weights.sum()
        theta = (weights @ models)[0]
        true = (world.experts - theta) @ gradient(theta, world.items(list(tasks), TRUTH // CHOSEN))
        for size in SIZES_OF_SAMPLES:
            items = world.items(list(tasks), size // CHOSEN)
            for name, oracle in oracles().items():
                scores = oracle(weights, models, theta, items)[:TASKS]  # the base is not to be chosen here
                at = int(vertices(scores[None])[0])
                regret = float((true[at] - true.min()) / np.ptp(true))
                right.setdefault((name, size), []).append((at == int(true.argmin()), regret))
    table: dict[str, dict[int, tuple[float, float]]] = {}
    for (name, size), found in right.items():
        top, regret = np.mean(found, axis=0)
        table.setdefault(name, {})[size] = (float(top), float(regret))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = []
    for seed in range(given.worlds):
        world = World(seed)
        own = float(np.mean([world.accuracy(one, task) for task, one in enumerate(world.experts)]))
        base = float(np.mean([world.accuracy(world.base, task) for task in range(TASKS)]))
        table = measure(world)
        results.append({"world": seed, "own accuracy": own, "base accuracy": base, "table": table})
        print(f"\nworld {seed}: accuracy of experts on their own task {own:.2f}, of the base {base:.2f}\n")
        print("| oracle | " + " | ".join(f"m {size}" for size in SIZES_OF_SAMPLES) + " |")
        print("|---|" + "---|" * len(SIZES_OF_SAMPLES))
        for name, row in table.items():
            cells = [f"{row[size][0]:.2f} / {row[size][1]:.3f}" for size in SIZES_OF_SAMPLES]
            print(f"| {name} | " + " | ".join(cells) + " |")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
