"""Task vectors of one matrix over a base of zeros, merged: what the tests of matrix operators share."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Recipe, Segment
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

Matrix = NDArray[np.float64]
Options = tuple[tuple[str, str | int | float | bool], ...]


def taus(seed: int, shape: tuple[int, int] = (5, 7), experts: int = 3) -> list[Matrix]:
    """Random task vectors of different lengths."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) * random.uniform(0.5, 2.0) for _ in range(experts)]


def merged(
    name: str, of: Sequence[Matrix], values: Sequence[float], options: Options = (), tensor: str = "w"
) -> Matrix:
    """The merge of a base of zeros and these experts."""
    with tempfile.TemporaryDirectory() as folder:
        pool = pool_of(Path(folder), of, tensor)
        recipe = Recipe(
            name,
            tuple(f"pool:{one}" for one in pool.sources),
            (Segment("all", 0, pool.size, tuple(values)),),
            options,
        )
        built = build(Builder(pool, "table"), recipe)
    return built.reshape(of[0].shape).astype(np.float64)


def pool_of(folder: Path, of: Sequence[Matrix], tensor: str = "w") -> ModelPool:
    """A base of zeros and these experts, each a model of one matrix."""
    models = [np.zeros_like(of[0]), *of]
    for at, model in enumerate(models):
        save_checkpoint(folder / f"{at}.safetensors", {tensor: model.astype(np.float32)})
    members = {f"m{at}": f"{at}.safetensors" for at in range(len(models))}
    return ModelPool.open(PoolSettings(members=members), folder)


def build(builder: Builder, recipe: Recipe) -> Any:
    """The recipe's only tensor, flat."""
    (slot,) = builder.pool.layout.slots
    return np.concatenate([values for _, values in builder.chunks(builder.resolve(recipe), slot)])
