"""The tiny checkpoints that mergekit merges here: Llama-shaped, made from a seed. Needs torch, safetensors, tokenizers.

All are written under ``pools/``:

- ``float32/{base,chat,code,math}``: three layers, untied. Deltas grow with depth (x 0.1, 1, 2) and from expert to
  expert (rms 0.0005, 0.002, 0.008 on weights of rms 0.05), so that one recipe meets angles on both sides of mergekit's
  slerp threshold of 1.81 degrees. ``code`` leaves the norms as they were, ``math`` a random half of all weights. Before
  that half is dropped, the deltas of ``code`` and ``math`` correlate by +0.5, 0 and -0.45 in the three layers.
- ``bfloat16/...``: the same, rounded.
- ``tied/{base,math}``: ``float32``'s without ``lm_head.weight``, which their config ties to the embedding.
- ``tiny/{base,one,two,same,again}``: tensors of one to six elements, a zero row; the last two equal ``base``.
- ``shape/wide``: eight more embedding rows than ``float32``.
- ``vocabulary/{left,right,third}``: one layer; tokenizers that share some tokens under other numbers; rows of padding.
- ``lora/adapter``: rank 2 over ``float32/base``, on q_proj and v_proj.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models

Arrays = dict[str, NDArray[np.float32]]

SEED = 20_240_311
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY = {"hidden_size": 2, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 3}
RMS = {"chat": 0.0005, "code": 0.002, "math": 0.008}
DEPTH = (0.1, 1.0, 2.0)
CORRELATION = (0.5, 0.0, -0.45)


def shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a Llama of this config, in the file's order."""
    hidden, inner, vocab = (int(str(config[key])) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads, shared = int(str(config["num_attention_heads"])), int(str(config["num_key_value_heads"]))
    narrow = hidden // heads * shared
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(int(str(config["num_hidden_layers"]))):
        block = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    found |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    return found


def fresh(random: np.random.Generator, config: dict[str, object]) -> Arrays:
    """A base model: normal weights of rms 0.05, norms about 1."""
    return {
        name: (0.05 * random.standard_normal(shape) + ("norm" in name)).astype(np.float32)
        for name, shape in shapes(config).items()
    }


def experts(random: np.random.Generator, base: Arrays) -> dict[str, Arrays]:
    """The base plus each expert's delta; see the module's first lines."""
    found: dict[str, Arrays] = {name: {} for name in RMS}
    for name, weights in base.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 1
        common = random.standard_normal(weights.shape)
        for expert, rms in RMS.items():
            share = 0.0 if expert == "chat" else math.sqrt(abs(CORRELATION[layer]))
            sign = -1 if expert == "math" and CORRELATION[layer] < 0 else 1
            own = random.standard_normal(weights.shape)
            delta = rms * DEPTH[layer] * (sign * share * common + math.sqrt(1 - share**2) * own)
            if expert == "code" and "norm" in name:
                delta = np.zeros(weights.shape)
            if expert == "math":
                delta = np.where(random.random(weights.shape) < 0.5, 0, delta)
            found[expert][name] = (weights + delta).astype(np.float32)
    return found


def save(folder: Path, arrays: Arrays, config: dict[str, object], dtype: torch.dtype = torch.float32) -> None:
    """Write one checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps(config | {"torch_dtype": str(dtype).removeprefix("torch.")}, indent=1)
    (folder / "config.json").write_text(text + "\n")


def without_head(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name != "lm_head.weight"}


def save_tiny(pools: Path, random: np.random.Generator) -> None:
    """Tensors of one to six elements; ``one`` moves nothing in gate_proj, ``two`` has a zero row in q_proj."""
    config = CONFIG | TINY | {"num_key_value_heads": 1}
    base = fresh(random, config)
    one = {
        name: (array + 0.01 * random.standard_normal(array.shape)).astype(np.float32) for name, array in base.items()
    }
    two = {
        name: (array + 0.02 * random.standard_normal(array.shape)).astype(np.float32) for name, array in base.items()
    }
    one["model.layers.0.mlp.gate_proj.weight"] = base["model.layers.0.mlp.gate_proj.weight"]
    two["model.layers.0.self_attn.q_proj.weight"][0] = 0
    for name, arrays in {"base": base, "one": one, "two": two, "same": base, "again": base}.items():
        save(pools / "tiny" / name, arrays, config)


def save_tokenizer(folder: Path, vocabulary: list[str], merges: list[tuple[str, str]], added: list[str]) -> None:
    """A BPE tokenizer; added tokens follow its vocabulary."""
    model = models.BPE(
        vocab={token: number for number, token in enumerate(vocabulary)}, merges=merges, unk_token="<unk>"
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 64,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def save_vocabularies(pools: Path, random: np.random.Generator) -> None:
    """``left`` has 11 tokens in 12 rows, ``right`` 13 in 16, ``third`` 9 in 9.

    Eight tokens are in both ``left`` and ``right``, five of them under other numbers; ``f``, ``g`` and ``<tool>`` are
    in ``right`` and ``third`` alone.
    """
    special = ["<unk>", "<s>", "</s>"]
    left = [*special, "a", "b", "c", "d", "e", "ab", "cd"]
    right = [*special, "b", "a", "d", "c", "f", "g", "ba", "cd"]
    third = [*special, "g", "f", "a", "b", "ab"]
    config = CONFIG | {"num_hidden_layers": 1}
    for name, rows in {"left": 12, "right": 16, "third": 9}.items():
        own = config | {"vocab_size": rows}
        save(pools / "vocabulary" / name, fresh(random, own), own)
    save_tokenizer(pools / "vocabulary/left", left, [("a", "b"), ("c", "d")], ["<left>"])
    save_tokenizer(pools / "vocabulary/right", right, [("b", "a"), ("c", "d")], ["<tool>", "<right>"])
    save_tokenizer(pools / "vocabulary/third", third, [("a", "b")], ["<tool>"])


def save_adapter(folder: Path, random: np.random.Generator) -> None:
    """A PEFT adapter of rank 2 and scale 4 / 2."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for layer in range(3):
        for target, rows in {"q_proj": 16, "v_proj": 8}.items():
            for half, shape in {"A": (2, 16), "B": (rows, 2)}.items():
                name = f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_{half}.weight"
                tensors[name] = torch.from_numpy((0.05 * random.standard_normal(shape)).astype(np.float32))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "float32/base",
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def save_pools(pools: Path) -> None:
    """Write everything, the same bytes every time."""
    random = np.random.default_rng(SEED)
    base = fresh(random, CONFIG)
    members = {"base": base} | experts(random, base)
    for name, arrays in members.items():
        save(pools / "float32" / name, arrays, CONFIG)
        save(pools / "bfloat16" / name, arrays, CONFIG, torch.bfloat16)
    for name in ("base", "math"):
        save(pools / "tied" / name, without_head(members[name]), CONFIG | {"tie_word_embeddings": True})
    wide = {
        name: np.vstack([array, array[:8]]) if array.shape[0] == CONFIG["vocab_size"] else array
        for name, array in members["math"].items()
    }
    save(pools / "shape/wide", wide, CONFIG | {"vocab_size": 48})
    save_tiny(pools, random)
    save_vocabularies(pools, random)
    save_adapter(pools / "lora/adapter", random)
