"""Experts on Fashion-MNIST: small networks fine-tuned from one base, each on some classes; and what merges answer.

The data lies in ``$EVOMERGE_SHARED/data/fashion_mnist`` (default: ``../shared`` beside the checkout).
"""

from __future__ import annotations

import gzip
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("EVOMERGE_SHARED", ROOT.parent / "shared")) / "data" / "fashion_mnist"
CLASSES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9), (0, 1, 5, 6), (2, 3, 7, 8, 9))
SIZES = (196, 32, 10)


@dataclass(frozen=True)
class Images:
    """Pixels float32 in [0, 1], (n, 196): means of 2 x 2; and labels."""

    pixels: np.ndarray
    labels: np.ndarray

    def part(self, which: slice | np.ndarray) -> Images:
        """Some of them."""
        return Images(self.pixels[which], self.labels[which])


def images(name: str) -> Images:
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is not there; set EVOMERGE_SHARED to the folder that holds data/fashion_mnist")
    pixels = gzip.decompress((SHARED / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((SHARED / f"{name}-labels-idx1-ubyte.gz").read_bytes())[8:]
    quads = np.frombuffer(pixels, np.uint8).reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32)
    return Images(quads.reshape(-1, 196) / 255, np.frombuffer(labels, np.uint8).astype(np.int64))


def layers(vector: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a flat vector."""
    found, at = [], 0
    for fan_in, fan_out in pairwise(SIZES):
        weights = vector[at : at + fan_in * fan_out].reshape(fan_in, fan_out)
        at += fan_in * fan_out
        found.append((weights, vector[at : at + fan_out]))
        at += fan_out
    return found


def scores(vector: np.ndarray, data: Images) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and the cross-entropy in nats, of every image."""
    (w1, b1), (w2, b2) = layers(vector)
    logits = np.maximum(data.pixels @ w1 + b1, 0) @ w2 + b2
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), data.labels]
    return logits.argmax(axis=1) == data.labels, losses.astype(np.float64)


def experts(train: Images) -> np.ndarray:
    """One flat vector per expert: a base seen briefly by all, then fine-tuned on the expert's own classes."""
    random = np.random.default_rng(0)
    base = np.concatenate(
        [np.append(random.normal(0, np.sqrt(2 / i), i * o), np.zeros(o)) for i, o in pairwise(SIZES)]
    ).astype(np.float32)
    base = trained(base, train, 60, random)
    return np.array([trained(base, train.part(np.isin(train.labels, some)), 700, random) for some in CLASSES])


def trained(vector: np.ndarray, data: Images, steps: int, random: np.random.Generator) -> np.ndarray:
    """Adam on batches of 128."""
    theta, mean, square = vector.copy(), np.zeros_like(vector), np.zeros_like(vector)
    for step in range(1, steps + 1):
        batch = data.part(random.integers(len(data.labels), size=128))
        (w1, b1), (w2, b2) = layers(theta)
        hidden = np.maximum(batch.pixels @ w1 + b1, 0)
        logits = hidden @ w2 + b2
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = chances / chances.sum(axis=1, keepdims=True)
        error[np.arange(128), batch.labels] -= 1
        error /= 128
        back = (error @ w2.T) * (hidden > 0)
        slope = np.concatenate(
            [(batch.pixels.T @ back).ravel(), back.sum(axis=0), (hidden.T @ error).ravel(), error.sum(axis=0)]
        )
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        theta -= 1e-3 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return theta
