"""The PEFT library loads what is exported, and merges its own adapters as we do where it merges them right."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evomerge.candidate import Recipe, Segment
from evomerge.merge.adapter_export import export_adapter
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of PEFT's own; `loaded` heeds one of them

ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "other": {"r": 4, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj", "embed_tokens"]},
    "uneven": {
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["q_proj", "up_proj"],
        "rank_pattern": {"up_proj": 3, r"layers\.1\.self_attn\.q_proj": 5},
        "alpha_pattern": {"up_proj": 7},
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, and adapters of it with random factors, all as their libraries save them."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    with warnings.catch_warnings(action="ignore"):
        transformers.LlamaForCausalLM(config).save_pretrained(folder / "base")
        for name, settings in ADAPTERS.items():
            live = peft.get_peft_model(base_of(folder), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
            for key, parameter in live.named_parameters():
                if "lora_" in key:
                    torch.nn.init.normal_(parameter, std=0.3)
            live.save_pretrained(folder / name)
    return folder


@pytest.fixture
def pool(home: Path) -> ModelPool:
    return ModelPool.open(PoolSettings({name: name for name in ADAPTERS}, base="base"), home)


def base_of(home: Path) -> Any:
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(home / "base", dtype=torch.float32)


def loaded(home: Path, adapter: Path) -> Any:
    """The base with an adapter merged in by PEFT, which finds every tensor that it looks for."""
    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return peft.PeftModel.from_pretrained(base_of(home), adapter).merge_and_unload()


def recipe(pool: ModelPool, operator: str, values: tuple[float, ...], members: tuple[str, ...] = ()) -> Recipe:
    segments = tuple(Segment(group.name, 0, group.size, values) for group in pool.groups)
    return Recipe(operator, ("pool:base", *(f"pool:{name}" for name in members or ADAPTERS)), segments)


def weights(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}


RECIPES = {
    "lora_cat": (0.3, -0.7, 1.1),
    "task_arithmetic": (0.3, -0.7, 1.1),
    "lora_svd": (0.3, -0.7, 1.1, 6.0, 0.99),
    "lora_lego": (5.0, 1.0),
}


@pytest.mark.parametrize("operator", RECIPES)
def test_as_an_adapter_into_the_base_and_into_a_live_model_it_is_one_model(
    operator: str, home: Path, pool: ModelPool, tmp_path: Path
) -> None:
    import transformers

    one, builder = recipe(pool, operator, RECIPES[operator]), Builder(pool, "table")
    export_adapter(builder, one, (), tmp_path / "adapter", card="# card")
    export(builder, one, (), tmp_path / "whole", card="# card")
    live = base_of(home)
    builder.write(builder.resolve(one), bind(live, pool))
    whole = weights(transformers.LlamaForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32))
    found = weights(loaded(home, tmp_path / "adapter"))
    before = weights(base_of(home))
    assert any(not np.array_equal(found[name], before[name]) for name in found)
    for name, values in weights(live).items():
        assert np.array_equal(whole[name], values), name
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
    token = torch.arange(12)[None]
    with torch.no_grad():
        logits = live(token).logits
        np.testing.assert_allclose(loaded(home, tmp_path / "adapter")(token).logits, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_adapter_written_again_is_the_adapter(name: str, home: Path, pool: ModelPool, tmp_path: Path) -> None:
    export_adapter(Builder(pool), recipe(pool, "lora_cat", (1.0,), (name,)), (), tmp_path / "out", card="")
    for key, values in weights(loaded(home, home / name)).items():
        np.testing.assert_allclose(weights(loaded(home, tmp_path / "out"))[key], values, rtol=1e-5, atol=1e-6)


@pytest.fixture
def weighted(home: Path) -> Callable[..., dict[str, Any]]:
    """What PEFT's own ``add_weighted_adapter`` makes of ``plain`` and ``other``."""
    import peft

    def merge(given: tuple[float, float], kind: str, **settings: Any) -> dict[str, Any]:
        live = peft.PeftModel.from_pretrained(base_of(home), home / "plain", adapter_name="plain")
        live.load_adapter(home / "other", adapter_name="other")
        live.add_weighted_adapter(["plain", "other"], list(given), "merged", combination_type=kind, **settings)
        return weights(live.merge_and_unload(adapter_names=["merged"]))

    return merge


AGREEING: dict[str, tuple[str, tuple[float, ...], dict[str, int]]] = {
    "lora_cat": ("cat", (), {}),
    "lora_linear": ("linear", (), {}),
    "lora_svd": ("svd", (3.0, 1.0), {"svd_rank": 3}),
}


@pytest.mark.parametrize("given", [(0.3, 1.1), (0.8, -0.5)])
@pytest.mark.parametrize("operator", AGREEING)
def test_operators_agree_with_peft(
    operator: str, given: tuple[float, float], pool: ModelPool, weighted: Callable[..., dict[str, Any]]
) -> None:
    kind, more, settings = AGREEING[operator]
    expected = weighted(given, kind, **settings)
    builder = Builder(pool, "table")
    vector = builder.resolve(recipe(pool, operator, (*given, *more), ("plain", "other")))
    for slot in pool.layout.slots:
        found = builder.read(vector, slot, 0, slot.size).reshape(slot.shape)
        np.testing.assert_allclose(found, expected[slot.name], rtol=1e-4, atol=1e-4, err_msg=slot.name)


def test_ranks_that_differ_from_module_to_module_survive_a_merge(home: Path, pool: ModelPool, tmp_path: Path) -> None:
    """PEFT itself cannot load what it merges from them (its issue 3737), and scales rank-stabilised ones anew."""
    one = recipe(pool, "lora_linear", (1.0,), ("uneven",))
    export_adapter(Builder(pool), one, (), tmp_path / "out", card="")
    for name, values in weights(loaded(home, home / "uneven")).items():
        np.testing.assert_allclose(weights(loaded(home, tmp_path / "out"))[name], values, rtol=1e-5, atol=1e-6)
