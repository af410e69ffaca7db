import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

MakePool = Callable[..., ModelPool]

SHAPES = {"layers.2.w": (7, 5), "layers.10.w": (5, 3), "embed": (11, 4), "norm": (1,)}


@pytest.fixture
def make_pool(tmp_path: Path) -> MakePool:
    """A pool of random float32 members of one architecture; keywords are further pool settings."""

    def make(
        members: int = 3, seed: int = 0, shapes: dict[str, tuple[int, ...]] = SHAPES, **settings: Any
    ) -> ModelPool:
        random = np.random.default_rng(seed)
        folder = tmp_path / f"pool{seed}"
        for member in range(members):
            tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
            if not (folder / f"{member}.safetensors").exists():
                save_checkpoint(folder / f"{member}.safetensors", tensors)
        names = {f"m{member}": f"{member}.safetensors" for member in range(members)}
        return ModelPool.open(PoolSettings(members=names, **settings), folder)

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, which is no part of the project."""
    home = Path(os.environ.get("EVOMERGE_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (home / "data" / "stories260K" / "hf" / "model.safetensors").is_file():
        pytest.skip(f"no real models at {home}; set EVOMERGE_SHARED to a folder with data/stories260K/hf")
    return home / "data"
