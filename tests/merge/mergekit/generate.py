"""Run every recipe of recipes.yaml through mergekit and store what comes out. Not run by the tests.

    python generate.py [NAME ...]

with mergekit 0.1.5, and without evomerge. Writes ``pools/`` and, for each recipe, ``golden/NAME.json`` and
``golden/NAME.safetensors``; with names, only those. mergekit is called as ``mergekit-yaml`` is, flags and all, but in
this process: importing it takes seconds, a merge of such models a tenth of one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from mergekit.scripts.run_yaml import main as mergekit_yaml
from numpy.typing import NDArray
from pools import save_pools
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

HERE = Path(__file__).parent
POOLS = HERE / "pools"
GOLDEN = HERE / "golden"
FLAGS = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
PACKAGES = ("mergekit", "torch", "transformers", "safetensors", "tokenizers", "peft")
KEPT = (
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.2.mlp.down_proj.weight",
    "model.norm.weight",
)
CONFIG_KEYS = ("num_hidden_layers", "vocab_size", "dtype", "torch_dtype", "tie_word_embeddings")

Tensors = dict[str, torch.Tensor]
Floats = NDArray[np.float64]


def merge(text: str, options: list[str], work: Path) -> Path:
    """What ``mergekit-yaml`` writes for a recipe, in a new folder."""
    out = Path(tempfile.mkdtemp(dir=work))
    recipe = work / "recipe.yml"
    recipe.write_text(text)
    given = [str(work / "lora") if option == "LORA_CACHE" else option for option in options]
    with contextlib.redirect_stderr(io.StringIO()):
        mergekit_yaml(args=[str(recipe), str(out), *FLAGS, *given], standalone_mode=False)
    return out


def written(out: Path) -> Tensors:
    """All tensors of an output folder."""
    found: Tensors = {}
    for file in sorted(out.glob("*.safetensors")):
        found |= load_file(file)
    return found


def described(out: Path, tensors: Tensors) -> dict[str, Any]:
    """What a case's JSON says of an output: its config, its tokens, how many of its numbers are none."""
    config = json.loads((out / "config.json").read_text())
    about: dict[str, Any] = {"config": {key: config[key] for key in CONFIG_KEYS if key in config}}
    if (out / "tokenizer.json").is_file():
        tokens = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab()
        about["vocabulary"] = dict(sorted(tokens.items(), key=lambda item: item[1]))
    if spoilt := sum(int((~tensor.isfinite()).sum()) for tensor in tensors.values()):
        about["not_finite"] = spoilt
    return about


def once(recipe: dict[str, Any], work: Path) -> tuple[dict[str, Any], Tensors]:
    """A recipe whose result is the same every time."""
    out = merge(recipe["merge"], recipe.get("options", []), work)
    tensors = written(out)
    about = described(out, tensors)
    shutil.rmtree(out)
    whole = recipe.get("keep") == "all"
    return about | {"whole": whole}, tensors if whole else {name: tensors[name] for name in KEPT}


def often(recipe: dict[str, Any], work: Path) -> tuple[dict[str, Any], Tensors]:
    """A random recipe: mean and standard deviation over its seeds, entry by entry; of one expert also its masks."""
    results: dict[str, list[Floats]] = {name: [] for name in KEPT}
    about: dict[str, Any] = {}
    for seed in range(1, recipe["seeds"] + 1):
        out = merge(recipe["merge"], [*recipe.get("options", []), "--random-seed", str(seed)], work)
        tensors = written(out)
        about = about or described(out, tensors)
        shutil.rmtree(out)
        for name, values in results.items():
            values.append(tensors[name].double().numpy())
    kept: Tensors = {}
    for name, values in results.items():
        kept[name] = torch.from_numpy(np.mean(values, axis=0)).float()
        kept[f"deviation/{name}"] = torch.from_numpy(np.std(values, axis=0, ddof=1)).float()
    settings = yaml.safe_load(recipe["merge"])
    if len(settings["models"]) == 1:
        base = load_file(POOLS / settings["base_model"] / "model.safetensors")
        expert = load_file(POOLS / settings["models"][0]["model"] / "model.safetensors")
        about["masks"] = {
            name: masks(np.stack(values), base[name].double().numpy(), expert[name].double().numpy())
            for name, values in results.items()
            if not torch.equal(base[name], expert[name])
        }
    return about, kept


def masks(results: Floats, base: Floats, expert: Floats) -> dict[str, Any]:
    """Of one sparsified delta: shares kept, scales, and how often each rank of a row was kept (smallest first)."""
    delta = expert - base
    kept = results != base
    moved = [(result - base)[mask] / delta[mask] for result, mask in zip(results, kept, strict=True)]
    scales = np.array([np.median(ratio) for ratio in moved])
    ratios = np.array([np.abs(delta).sum() / np.abs(delta[mask]).sum() for mask in kept])
    shares = kept.reshape(len(kept), -1).mean(axis=1)
    rows = np.atleast_2d(delta)
    order = np.argsort(np.abs(rows), axis=1)
    frequency = np.take_along_axis(np.atleast_2d(kept.mean(axis=0)), order, axis=1).mean(axis=0)
    return {
        "kept": [round(float(shares.mean()), 5), round(float(shares.std(ddof=1)), 5)],
        "scale": [round(float(scales.mean()), 5), round(float(scales.std(ddof=1)), 5)],
        "scale_over_l1_ratio": [round(float((scales / ratios).min()), 5), round(float((scales / ratios).max()), 5)],
        "kept_by_rank": [round(float(share), 4) for share in frequency],
    }


def record(name: str, recipe: dict[str, Any], versions: dict[str, str], work: Path) -> None:
    """Run one recipe and store its case, a refusal or crash as well."""
    case = {
        "name": name,
        "shows": recipe["shows"].strip(),
        "versions": versions,
        "options": recipe.get("options", []),
        "merge": recipe["merge"],
    }
    case |= {"seeds": recipe["seeds"]} if "seeds" in recipe else {}
    try:
        about, tensors = (often if "seeds" in recipe else once)(recipe, work)
    except Exception as error:  # whatever mergekit raises is what the case records
        case["error"] = {"type": type(error).__name__, "message": str(error).strip().splitlines()[0][:300]}
    else:
        case |= about
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, GOLDEN / f"{name}.safetensors")
    text = json.dumps(case, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\s\d.,]*\]", lambda match: " ".join(match[0].split()), text)  # lists of numbers in one line
    (GOLDEN / f"{name}.json").write_text(text + "\n")
    print(name, case.get("error", ""), flush=True)


def main() -> None:
    """Make the pools and all cases, or the named ones."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    recipes = yaml.safe_load((HERE / "recipes.yaml").read_text())
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    wanted = sys.argv[1:] or list(recipes)
    if not sys.argv[1:]:
        shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(exist_ok=True)
    save_pools(POOLS)
    os.chdir(POOLS)
    with tempfile.TemporaryDirectory() as work:
        for name in wanted:
            record(name, recipes[name], versions, Path(work))


if __name__ == "__main__":
    main()
