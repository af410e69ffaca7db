"""Live models of the architecture a checkpoint folder describes, with arbitrary weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from evomerge.errors import PoolError

Head = Literal["any", "image", "text"]
_HEADS = {"image": "ForImageClassification", "text": "ForSequenceClassification"}


def skeleton(folder: Path, head: Head = "any") -> Any:
    """A module for the folder's ``config.json``: evaluation mode, no gradients, weights uninitialised.

    ``head`` is the head that the fitness needs: an image or text classifier of transformers, or whatever the
    folder's ``architectures`` names. Only files of the folder are read and no code of the folder is run.

    Raises:
        PoolError: no usable ``config.json``, an unknown model type, or a model without the head.
    """
    config = read_config(folder)
    if config["model_type"] == "evomerge_mlp":
        if head != "any":
            raise PoolError(f"{folder} is a plain MLP; an {head} fitness needs a transformers model ...{_HEADS[head]}")
        from evomerge_fitness import mlp

        return mlp.MLP(mlp.read_config(folder))
    return _transformers(folder, config, head)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``.

    Raises:
        PoolError: there is none, or it does not say its ``model_type``.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise PoolError(f"{folder} has no config.json; a live model is built from a checkpoint folder") from None
    except (OSError, ValueError) as error:
        raise PoolError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise PoolError(f"{path} does not say its model_type; is it a checkpoint's config.json?")
    return config


def _transformers(folder: Path, config: dict[str, Any], head: Head) -> Any:
    import torch
    from transformers import AutoConfig

    named = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if head != "any" and not any(name.endswith(_HEADS[head]) for name in named):
        have = ", ".join(named) or "no architecture at all"
        raise PoolError(f"{folder / 'config.json'} names {have}; this fitness needs a model ...{_HEADS[head]}")
    try:
        parsed = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _without_initialising():
            model = _auto(named).from_config(parsed, trust_remote_code=False)
        model.tie_weights()
    except (ValueError, OSError, KeyError) as error:
        kind = config["model_type"]
        raise PoolError(f"transformers builds no model for {folder} (model_type {kind!r}): {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise PoolError(f"{folder} describes no torch model")
    return model.eval().requires_grad_(False)


def _auto(architectures: list[str]) -> Any:
    """The Auto class for the first architecture; ``AutoModel`` when the head is unknown or absent."""
    import transformers

    known = {
        "ForImageClassification": transformers.AutoModelForImageClassification,
        "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
        "ForCausalLM": transformers.AutoModelForCausalLM,
        "LMHeadModel": transformers.AutoModelForCausalLM,
    }
    matching = (auto for name in architectures for end, auto in known.items() if name.endswith(end))
    return next(matching, transformers.AutoModel)


def _without_initialising() -> Any:
    """Random initial weights would be overwritten at once, and drawing them takes most of the time of building."""
    from importlib import import_module
    from importlib.util import find_spec

    new = "transformers.initialization"
    return import_module(new if find_spec(new) else "transformers.modeling_utils").no_init_weights()
