"""Llama-shaped checkpoints of random weights: a base and experts, the same bytes from the same seeds on any machine.

    python experiments/merge_engine/make_pool.py --work DIR [--size 0.45b] [--experts 3] [--shard-gb 0]

DIR/SIZE/{base,expert0,expert1,...}: bfloat16 safetensors, a config.json and a tokenizer of three tokens. Base weights
are normal with s.d. 0.02 (norms are one) and seed 1000; expert i adds normal noise of s.d. 0.002 with seed 2000 + i.
Made piece by piece, in a hidden folder that is renamed when it is whole; what is there already is left alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.tensorfile import Array, from_float32
from evomerge.merge.writer import Planned, shards, write_file, write_index

PIECE = 1 << 20
"""Numbers drawn from one generator: a stream of its own for each piece, so that threads draw them in any order."""

SPARE = 5e9
"""Bytes of disk that are left free."""

SHAPES = {  # hidden size, inner size, layers, heads, key-value heads
    "0.45b": (1280, 3456, 22, 20, 5),  # 464,052,480 parameters in 201 tensors
    "1.1b": (2048, 5632, 22, 32, 4),  # 1,100,048,384 in 201
    "3b": (3200, 8640, 26, 32, 32),  # 3,426,473,600 in 237
    "7b": (4096, 11008, 32, 32, 32),  # 6,738,415,616 in 291
}
VOCABULARY = 32_000
TOKENS = {"<unk>": 0, "<s>": 1, "</s>": 2}


def config(size: str) -> dict[str, object]:
    hidden, inner, layers, heads, shared = SHAPES[size]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def tensors(size: str) -> list[Planned]:
    hidden, inner, layers, heads, shared = SHAPES[size]
    narrow = hidden // heads * shared
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
    names: dict[str, tuple[int, ...]] = {"model.embed_tokens": (VOCABULARY, hidden)}
    for layer in range(layers):
        names |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    names |= {"model.norm": (hidden,), "lm_head": (VOCABULARY, hidden)}
    return [Planned(f"{name}.weight", "BF16", shape) for name, shape in names.items()]


def normal(seed: int, tensor: int, piece: int, count: int, deviation: float) -> NDArray[np.float32]:
    drawn = np.random.default_rng([seed, tensor, piece]).standard_normal(count, dtype=np.float32)
    drawn *= np.float32(deviation)
    return drawn


def pieces(plan: Planned, tensor: int, seed: int, base: Checkpoint | None, threads: int) -> Iterator[Array]:
    """A tensor's bfloat16 values in order, drawn by several threads, a few pieces ahead."""
    size = math.prod(plan.shape)

    def draw(piece: int) -> Array:
        start, stop = piece * PIECE, min((piece + 1) * PIECE, size)
        if base is not None:
            values = base.floats(plan.name, start, stop)
            values += normal(seed, tensor, piece, stop - start, 0.002)
        elif "norm" in plan.name:
            values = np.ones(stop - start, dtype=np.float32)
        else:
            values = normal(seed, tensor, piece, stop - start, 0.02)
        return from_float32(values, "BF16")

    count = -(-size // PIECE)
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, count, 4 * threads):
            yield from pool.map(draw, range(first, min(first + 4 * threads, count)))


def write_tokenizer(folder: Path) -> None:
    """Three tokens: enough for tools that copy a tokenizer or open it."""
    model = {"type": "WordLevel", "vocab": TOKENS, "unk_token": "<unk>"}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": number, "content": token, **flags} for token, number in TOKENS.items()]
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    text = json.dumps({"version": "1.0", **parts, "added_tokens": added, "model": model}, indent=1)
    (folder / "tokenizer.json").write_text(text + "\n")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "</s>"}, indent=1) + "\n")


def write_model(folder: Path, size: str, seed: int, base: Path | None, *, shard_bytes: int, threads: int) -> None:
    """One checkpoint, made beside its place and renamed into it."""
    if folder.exists():
        print(f"{folder} is there already")
        return
    begun = time.perf_counter()
    planned = tensors(size)
    needed = sum(plan.nbytes for plan in planned)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < needed + SPARE:
        sys.exit(f"{folder} needs {needed / 1e9:.1f} GB and {SPARE / 1e9:.0f} GB to spare; the disk has less")
    number = {plan.name: index for index, plan in enumerate(planned)}
    source = None if base is None else Checkpoint(base)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir()
    try:
        files = list(shards(planned, shard_bytes or needed))
        for name, lot in files:
            write_file(partial / name, lot, lambda plan: pieces(plan, number[plan.name], seed, source, threads))
        if len(files) > 1:
            write_index(partial, files)
        (partial / "config.json").write_text(json.dumps(config(size), indent=1) + "\n")
        write_tokenizer(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    count = sum(math.prod(plan.shape) for plan in planned)
    print(f"{folder}: {count:,} parameters, {len(planned)} tensors, {time.perf_counter() - begun:.0f} s", flush=True)


def make(work: Path, size: str, experts: int, shard_gb: float = 0, threads: int = 2) -> Path:
    """The pool's folder, with whatever was missing made."""
    pool = work / (size if not shard_gb else f"{size}-{shard_gb:g}gb")
    shard_bytes = int(shard_gb * 1e9)
    write_model(pool / "base", size, 1000, None, shard_bytes=shard_bytes, threads=threads)
    for index in range(experts):
        folder = pool / f"expert{index}"
        write_model(folder, size, 2000 + index, pool / "base", shard_bytes=shard_bytes, threads=threads)
    return pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where pools are kept; outside the repository")
    parser.add_argument("--size", choices=SHAPES, default="0.45b")
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--shard-gb", type=float, default=0, help="0 writes one file")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    make(given.work, given.size, given.experts, given.shard_gb, given.threads)


if __name__ == "__main__":
    main()
