"""A pool of four layers, with an embedding and a head beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import Recipe
from evomerge.merge.pool import ModelPool
from evomerge.recipes import file
from evomerge.recipes.resolve import Resolved, resolve
from evomerge.testing.checkpoints import save_checkpoint

LAYERS = 4
SHAPES = {
    "embed": (6, 4),
    **{f"layers.{layer}.{module}.w": (4, 4) for layer in range(LAYERS) for module in ("attn", "mlp")},
    "head": (6, 4),
}
POOL = "pool: {base: base, members: {math: math, code: code}}\n"

At = Callable[..., dict[str, tuple[float, ...]]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the checkpoints base, math and code."""
    random = np.random.default_rng(5)
    for name in ("base", "math", "code"):
        tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        save_checkpoint(tmp_path / name / "model.safetensors", tensors)
    return tmp_path


@pytest.fixture
def resolved(models: Path) -> Callable[[str], Resolved]:
    """Reads a recipe file's text and resolves it over the pool that it names."""

    def resolve_text(text: str) -> Resolved:
        read = file.read(models / "recipe.yml", text)
        return resolve(read, ModelPool.open(read.pool, read.root))

    return resolve_text


@pytest.fixture
def at(models: Path) -> At:
    """The values of each tensor in a recipe, whose segments must begin and end with tensors."""

    def values(recipe: Recipe, text: str = POOL + "merge: {operator: linear}") -> dict[str, tuple[float, ...]]:
        read = file.read(models / "recipe.yml", text)
        pool = ModelPool.open(read.pool, read.root)
        found = {}
        for slot in pool.layout.slots:
            (segment,) = [
                one
                for one in recipe.segments
                if one.group == slot.group and one.start <= slot.offset and slot.offset + slot.size <= one.stop
            ]
            found[slot.name] = segment.values
        return found

    return values
