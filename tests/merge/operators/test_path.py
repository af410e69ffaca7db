"""Layer paths: the operator, and what its models compute beside the original layers run one by one."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from evomerge.errors import RecipeError
from evomerge.merge.build import Builder
from evomerge.merge.export import export
from evomerge.merge.operators.path import Path, _adds
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.space import PathSpace
from evomerge.strategy import Objective, Problem
from evomerge.testing.operator import Coefficients, OperatorContract, Whole

DEPTH, MEMBERS = 2, ("a", "b")
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=DEPTH,
    num_attention_heads=2,
    num_key_value_heads=1,
    rms_norm_eps=1e-9,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(
    vocab_size=40, n_positions=16, n_embd=16, n_layer=DEPTH, n_head=2, layer_norm_epsilon=1e-9, resid_pdrop=0.0
)


class TestPath(OperatorContract):
    name = "path"
    options = (("outputs", "column, bias"),)

    def values(self, seed: int = 0) -> tuple[float, ...]:
        """A layer of one source, or of none."""
        found = [0.0, 0.0, 0.0]
        if seed % 4 < 3:
            found[seed % 4] = 0.5 + seed
        return tuple(found)

    def equal_values(self) -> tuple[float, ...]:
        return (1.0, 0.0, 0.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        scales = values.each("scale")
        chosen = next((at for at, scale in enumerate(scales) if scale), 0)
        return {
            name: stack[chosen] * (scales[chosen] if name.endswith(("column", "bias")) else 1.0)
            for name, stack in theta.items()
        }

    def test_two_layers_at_one_place_are_refused(self) -> None:
        with pytest.raises(RecipeError, match="2 layers at one place"):
            Coefficients(Path(), 3)(1.0, 0.0, 0.5)


ADDED = (
    "model.layers.3.self_attn.o_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "transformer.h.1.attn.c_proj.bias",
    "transformer.h.1.mlp.c_proj.weight",
    "gpt_neox.layers.2.attention.dense.weight",
    "gpt_neox.layers.2.mlp.dense_4h_to_h.bias",
    "model.decoder.layers.0.fc2.weight",
)
NOT_ADDED = (
    "model.layers.3.self_attn.q_proj.weight",
    "model.layers.3.post_attention_layernorm.weight",
    "transformer.h.1.attn.c_attn.weight",
    "transformer.h.1.ln_2.bias",
    "gpt_neox.layers.2.attention.query_key_value.bias",
    "model.decoder.layers.0.self_attn_layer_norm.weight",
)
UNKNOWN = (
    "bert.encoder.layer.0.attention.output.dense.weight",
    "bert.encoder.layer.0.output.LayerNorm.weight",
    "model.layers.0.post_feedforward_layernorm.weight",
    "model.layers.0.mixer.x_weights",
)


@pytest.mark.parametrize("name", [*ADDED, *NOT_ADDED])
def test_outputs_of_common_architectures_are_told_by_name(name: str) -> None:
    assert _adds(name) == (name in ADDED)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_not_be_added_as_it_is_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="path cannot tell whether"):
        _adds(name)


@pytest.fixture(params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def models(request: pytest.FixtureRequest, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two random models of two layers, saved."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = {}
    for seed, name in enumerate(MEMBERS):
        torch.manual_seed(seed)
        made[name] = AutoModelForCausalLM.from_config(request.param).eval()
        with torch.no_grad():
            for parameter in made[name].parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        made[name].save_pretrained(tmp_path / name)
    return made


def pool_of(folder: File, repeats: int) -> tuple[ModelPool, Problem]:
    listed = (f"0:{DEPTH}",) * (len(MEMBERS) * repeats)
    chosen = PoolSettings({m: m for m in MEMBERS}, layers=dict.fromkeys(MEMBERS, listed), grouping="layer")
    pool = ModelPool.open(chosen, folder)
    pool.check()
    declared = (Path.declaration("path"),)
    return pool, Problem(0, pool.members, pool.groups, (Objective("x"),), operators=declared)


def run(pool: ModelPool, problem: Problem, space: PathSpace, x: Any, out: File) -> torch.Tensor:
    export(Builder(pool), space.decode(problem, x), (), out, card="")
    return logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval())


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


def scaled(model: Any, layers: list[Any], factors: list[float]) -> torch.Tensor:
    """The model with these layers instead of its own, the hidden state multiplied before each."""
    stack = model.model if hasattr(model, "model") else model.transformer
    kind = "layers" if hasattr(stack, "layers") else "h"
    own = getattr(stack, kind)
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, f=factor: (given[0] * f, *given[1:]))
        for layer, factor in zip(layers, factors, strict=True)
    ]
    setattr(stack, kind, torch.nn.ModuleList(layers))
    stack.config.num_hidden_layers = len(layers)
    try:
        with torch.no_grad():
            found: torch.Tensor = model(TOKENS, use_cache=False).logits
        return found
    finally:
        setattr(stack, kind, own)
        stack.config.num_hidden_layers = len(own)
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_start_is_the_first_member_bit_for_bit(models: dict[str, Any], tmp_path: File, repeats: int) -> None:
    pool, problem = pool_of(tmp_path, repeats)
    space = PathSpace("path", repeats)
    space.check(problem)
    found = run(pool, problem, space, space.start(problem), tmp_path / "out")
    assert torch.equal(found, logits(models["a"]))


def layer(models: dict[str, Any], member: str, at: int) -> Any:
    model = models[member]
    return (model.model.layers if hasattr(model, "model") else model.transformer.h)[at]


def test_factors_of_places_scale_the_hidden_state(models: dict[str, Any], tmp_path: File) -> None:
    pool, problem = pool_of(tmp_path, 1)
    space = PathSpace("path", low=0.2, high=5.0)
    x = np.array([1.0, -1.0, 0.2, 0.7, *np.log([0.7, 3.0, 1.9, 0.4])])  # a's first layer, b's both
    found = run(pool, problem, space, x, tmp_path / "out")
    passed = [layer(models, "a", 0), layer(models, "b", 0), layer(models, "b", 1)]
    expected = scaled(models["a"], passed, [0.7, 1.9, 0.4])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, scaled(models["a"], passed, [1.0, 1.0, 1.0]), atol=1e-2)


def test_factors_of_transitions_are_those_between_layers(models: dict[str, Any], tmp_path: File) -> None:
    pool, problem = pool_of(tmp_path, 1)
    space = PathSpace("path", scaling="transition", low=0.2, high=5.0)
    table = np.ones((4, 4))
    table[0, 3], table[3, 2] = 2.5, 9.9  # from a's first layer to b's second; the way back is never gone
    x = np.array([1.0, -1.0, -0.1, 1.0, *np.log(table).ravel()])
    found = run(pool, problem, space, x, tmp_path / "out")
    expected = scaled(models["a"], [layer(models, "a", 0), layer(models, "b", 1)], [1.0, 2.5])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
