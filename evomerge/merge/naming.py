"""What a live module's tensors are called in checkpoints."""

from __future__ import annotations

import sys
from typing import Any


def checkpoint_names(model: Any) -> list[tuple[Any, list[str]]]:
    """Each saved parameter and buffer of a torch module once, with every name a checkpoint may have for it.

    Tied weights have several names. A transformers model may call its tensors otherwise than its checkpoints do; the
    library's own renaming on saving gives those names. Where it also splits a fused tensor there is no such name.
    """
    state = model.state_dict(keep_vars=True)
    tensors: dict[int, tuple[Any, list[str]]] = {}
    for name, tensor in state.items():
        tensors.setdefault(id(tensor), (tensor, []))[1].append(name)
    for stored, name in _renamed(model, state).items():
        names = tensors[id(state[name])][1]
        if stored not in names:
            names.append(stored)
    return list(tensors.values())


def _renamed(model: Any, state: dict[str, Any]) -> dict[str, str]:
    """Name in checkpoints to name in the module, for what transformers merely renames."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return {}
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5 the names were always the same
        return {}
    import torch

    shadows = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    names = {id(shadow): name for name, shadow in shadows.items()}
    stored = revert_weight_conversion(model, dict(shadows))
    return {name: names[id(shadow)] for name, shadow in stored.items() if id(shadow) in names}
