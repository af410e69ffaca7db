"""The recipe files in docs/merging.md are recipe files."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evomerge.recipes.mergekit.methods import METHODS
from evomerge.recipes.resolve import Resolved
from evomerge.testing.checkpoints import save_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "merging.md").read_text()
RECIPES = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("pool:")]


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_are_recipes(text: str, models: Path, resolved: Callable[[str], Resolved]) -> None:
    for name in ("base", "math", "code"):  # names as those of a Llama
        file = models / name / "model.safetensors"
        file.unlink()
        save_checkpoint(file, {f"layers.{layer}.mlp.up.weight": np.ones((2, 2), np.float32) for layer in range(3)})
    assert resolved(text).warnings == ()


def test_all_methods_are_listed() -> None:
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`[^|]*) \|", PAGE, re.MULTILINE)))
    assert set(METHODS) <= set(listed)
