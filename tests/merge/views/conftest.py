import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.testing.checkpoints import save_checkpoint

Arrays = Mapping[str, np.ndarray[Any, Any]]
SaveAdapter = Callable[..., Path]

PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "init_lora_weights": True}


@pytest.fixture
def save_adapter(tmp_path: Path) -> SaveAdapter:
    """Writes a PEFT folder of these tensors (without PEFT's prefix); keywords are settings beside rank 2, alpha 4."""

    def save(name: str, tensors: Arrays, **settings: Any) -> Path:
        folder = tmp_path / name
        prefixed = {f"base_model.model.{key}": array for key, array in tensors.items()}
        save_checkpoint(folder / "adapter_model.safetensors", prefixed)
        (folder / "adapter_config.json").write_text(json.dumps(PLAIN | settings))
        return folder

    return save
