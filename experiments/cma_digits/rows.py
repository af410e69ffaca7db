"""CMA-ES with 22 coefficients: the first layer's weights by rows of pixels.

Tensors cannot be cut into parameter groups, so the strategy is driven directly, with the forward pass in numpy.

python experiments/cma_digits/rows.py [--seeds 10]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from evomerge.candidate import Evaluated, Score
from evomerge.space import WeightSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.cma_es import CMAES, CMAESSettings

SEEDS = Path(__file__).parents[2] / "tests" / "data" / "m2n2_digits_seeds.npz"
SIZES = (*8 * [8 * 256], 256, 2560, 10)
"""Eight rows of eight pixels, first biases, second weights, second biases."""

Vector = NDArray[np.float32]
X, Y = load_digits(return_X_y=True)
TRAIN = 1437


def scores(theta: Vector, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy and cross-entropy."""
    w1, b1, w2, b2 = np.split(theta, np.cumsum([64 * 256, 256, 2560]))
    logits = np.maximum(x @ w1.reshape(64, 256) + b1, 0) @ w2.reshape(256, 10) + b2
    logits = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return float((logits.argmax(axis=1) == y).mean()), float(loss.mean())


def run(objective: str, seed: int) -> tuple[float, float]:
    """Train and test accuracy in % of the best of 1,000 candidates."""
    members = [np.load(SEEDS)[key].astype(np.float32) for key in ("seed_1", "seed_2")]
    x, y = X.astype(np.float32), Y.astype(np.int64)
    groups = tuple(Group(str(at), size) for at, size in enumerate(SIZES))
    settings = CMAESSettings(
        WeightSpace(bounded=False), start=0.5, sigma=0.2, popsize=20, at_stop="go_on", score_members=False
    )
    direction = "maximize" if objective == "accuracy" else "minimize"
    strategy = CMAES(settings, Problem(seed, ("low", "high"), groups, (Objective(objective, direction),)))
    state, models = strategy.start(), {}
    while state.told < 1000:
        state, asked = strategy.ask(state, 20)
        for candidate in asked:
            weights = np.array([segment.values for segment in candidate.recipe.segments], dtype=np.float32)
            theta = sum(np.repeat(w, SIZES) * member for w, member in zip(weights.T, members, strict=True))
            models[candidate.number] = theta
            accuracy, loss = scores(theta, x[:TRAIN], y[:TRAIN])
            value = accuracy if objective == "accuracy" else loss
            state = strategy.tell(state, Evaluated(candidate, Score(((objective, value),))))
    best = models[strategy.finalists(state)[0]]
    return 100 * scores(best, x[:TRAIN], y[:TRAIN])[0], 100 * scores(best, x[TRAIN:], y[TRAIN:])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    for objective in ("cross_entropy", "accuracy"):
        results = zip(*(run(objective, seed) for seed in range(given.seeds)), strict=True)
        shown = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v) / len(v) ** 0.5:.1f}" for v in map(list, results)]
        print(f"| 8 pixel rows, b1, W2, b2 (22) | {objective} | {' / '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
