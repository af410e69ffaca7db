from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import PoolError
from evomerge.merge.grouping import grouped
from evomerge.merge.kinds import kind_of
from evomerge.merge.layout import layer_of, natural
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

MakePool = Callable[..., ModelPool]

LLAMA = sorted(
    [
        *("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"),
        *(
            f"model.layers.{layer}.{name}"
            for layer in range(12)
            for name in ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
        ),
    ],
    key=natural,
)


def alike(names: Any) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


def groups(way: str) -> dict[str, list[str]]:
    return grouped(LLAMA, way, alike)


WAYS = ["whole", "tensor", "layer", "blocks:1", "blocks:5", "blocks:12", "kind", "kind_and_layer", "importance:3"]


@pytest.mark.parametrize("way", WAYS)
def test_every_tensor_is_in_one_group(way: str) -> None:
    found = groups(way)
    assert sorted(name for group in found.values() for name in group) == sorted(LLAMA)
    assert all(found.values())
    for group in found.values():
        inner = [name for name in group if layer_of(name) is not None]
        assert inner == sorted(inner, key=natural)


def test_layers_come_in_order_between_what_is_before_and_after() -> None:
    found = groups("layer")
    assert list(found) == ["before", *(f"layer_{at}" for at in range(12)), "after"]
    assert found["before"] == ["model.embed_tokens.weight"]
    assert found["after"] == ["lm_head.weight", "model.norm.weight"]


def test_blocks_are_runs_of_about_equally_many_layers() -> None:
    found = groups("blocks:5")
    assert list(found) == [f"block_{at}" for at in range(5)]
    held = [sorted({layer for name in group if (layer := layer_of(name)) is not None}) for group in found.values()]
    assert [layer for block in held for layer in block] == list(range(12))
    assert sorted(map(len, held)) == [2, 2, 2, 3, 3]
    assert found["block_0"][0] == "model.embed_tokens.weight"
    assert found["block_4"][-1] == "model.norm.weight"


def test_kinds_with_and_without_layers() -> None:
    assert {group: len(names) for group, names in groups("kind").items()} == {
        "head": 1,
        "embedding": 1,
        "norm": 13,
        "mlp": 12,
        "attention": 12,
    }
    found = groups("kind_and_layer")
    assert len(found) == 12 * 3 + 3
    assert found["layer_3.attention"] == ["model.layers.3.self_attn.q_proj.weight"]
    assert found["norm"] == ["model.norm.weight"]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.integers(1, 8))
def test_blocks_by_importance_are_as_even_as_can_be(weights: list[float], count: int) -> None:
    names = [f"layers.{at}.w" for at in range(len(weights))]
    importance = dict(zip(names, weights, strict=True))
    if count > len(names):
        with pytest.raises(PoolError, match="only"):
            grouped(names, f"importance:{count}", lambda _: importance)
        return
    found = grouped(names, f"importance:{count}", lambda _: importance)
    assert [name for group in found.values() for name in group] == names
    assert len(found) == count

    def unevenness(cuts: tuple[int, ...]) -> float:
        return sum(sum(weights[start:stop]) ** 2 for start, stop in pairwise((0, *cuts, len(weights))))

    cuts = tuple(np.cumsum([len(group) for group in found.values()])[:-1].tolist())
    least = min(unevenness(other) for other in combinations(range(1, len(weights)), count - 1))
    assert unevenness(cuts) == pytest.approx(least)


@pytest.mark.parametrize(
    "way", ["", "block", "blocks", "blocks:", "blocks:0", "blocks:-1", "blocks:x", "kind:2", "blocks:²"]
)
def test_other_ways_are_named(way: str) -> None:
    with pytest.raises(PoolError, match=r"pool\.grouping is .*; give "):
        groups(way)


def test_more_blocks_than_layers_are_refused() -> None:
    with pytest.raises(PoolError, match="wants 13 blocks, but only 12 layers are merged"):
        groups("blocks:13")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "attention"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("model.layers.0.mlp.gate_proj.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.experts.1.w1.weight", "mlp"),
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "head"),
        ("transformer.h.0.attn.c_attn.weight", "attention"),
        ("transformer.h.0.mlp.c_fc.bias", "mlp"),
        ("transformer.h.0.ln_1.weight", "norm"),
        ("transformer.ln_f.bias", "norm"),
        ("transformer.wte.weight", "embedding"),
        ("transformer.wpe.weight", "embedding"),
        ("bert.embeddings.word_embeddings.weight", "embedding"),
        ("bert.embeddings.LayerNorm.weight", "norm"),
        ("bert.encoder.layer.0.attention.self.query.weight", "attention"),
        ("bert.encoder.layer.0.attention.output.LayerNorm.weight", "norm"),
        ("bert.encoder.layer.0.intermediate.dense.weight", "mlp"),
        ("bert.encoder.layer.0.output.dense.weight", "mlp"),
        ("classifier.weight", "head"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "attention"),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h.weight", "mlp"),
        ("gpt_neox.embed_in.weight", "embedding"),
        ("embed_out.weight", "head"),
        ("vit.embeddings.cls_token", "embedding"),
        ("vit.embeddings.patch_embeddings.projection.weight", "embedding"),
        ("vit.layernorm.weight", "norm"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "attention"),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight", "mlp"),
        ("encoder.block.0.layer.0.layer_norm.weight", "norm"),
        ("layers.0.affine.weight", "other"),
        ("fc1.weight", "mlp"),
    ],
)
def test_kinds_of_common_architectures(name: str, kind: str) -> None:
    assert kind_of(name) == kind


class TestPool:
    def save(self, folder: Path, changes: dict[int, float]) -> None:
        names = ["embed_tokens.weight", "norm.weight", *(f"layers.{at}.w" for at in range(4))]
        arrays = {name: np.full((2, 3), 1.0, dtype=np.float32) for name in names}
        save_checkpoint(folder / "base.safetensors", arrays)
        for at, change in changes.items():
            arrays[f"layers.{at}.w"] = arrays[f"layers.{at}.w"] + np.float32(change)
        save_checkpoint(folder / "x.safetensors", arrays)

    def open(self, folder: Path, base: str | None = "base.safetensors", **settings: Any) -> ModelPool:
        return ModelPool.open(PoolSettings(members={"x": "x.safetensors"}, base=base, **settings), folder)

    def test_layers_are_grouped_by_how_much_they_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        self.save(tmp_path, {0: -3.0, 1: 1.0, 2: 1.0, 3: 1.0})
        pool = self.open(tmp_path, grouping="importance:2")
        assert [slot.name for slot in pool.slots["block_0"]] == ["embed_tokens.weight", "layers.0.w"]
        (kept,) = (tmp_path / "cache" / "evomerge" / "pools").iterdir()
        monkeypatch.setattr("evomerge.merge.importance._change", None)
        assert self.open(tmp_path, grouping="importance:2").layout == pool.layout
        kept.unlink()
        with pytest.raises(TypeError):
            self.open(tmp_path, grouping="importance:2")

    def test_importance_needs_a_base(self, tmp_path: Path) -> None:
        self.save(tmp_path, {})
        with pytest.raises(PoolError, match=r"needs pool\.base"):
            self.open(tmp_path, base=None, grouping="importance:2")

    def test_importance_names_a_tensor_that_differs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        self.save(tmp_path, {})
        (tmp_path / "x.safetensors").unlink()
        save_checkpoint(tmp_path / "x.safetensors", {"layers.0.w": np.zeros((3, 3), dtype=np.float32)})
        with pytest.raises(PoolError, match=r"x\.safetensors has no tensor 'layers\.0\.w' like the base's"):
            self.open(tmp_path, grouping="importance:2")

    def test_groups_and_grouping_are_not_both_given(self, make_pool: MakePool) -> None:
        with pytest.raises(PoolError, match="keep one of them"):
            make_pool(groups={"all": ("*",)}, grouping="layer")

    def test_excluded_tensors_are_in_no_group(self, make_pool: MakePool) -> None:
        pool = make_pool(exclude=("layers.2.*",), grouping="layer")
        assert [group.name for group in pool.groups] == ["before", "layer_10", "after"]

    def test_order_holds_within_groups(self, make_pool: MakePool) -> None:
        shapes = dict.fromkeys(("layers.0.a", "layers.0.b", "layers.1.a", "layers.1.b"), (2,))
        pool = make_pool(seed=9, shapes=shapes, order=("*.b",), grouping="layer")
        assert [slot.name for slot in pool.layout.slots] == ["layers.0.b", "layers.0.a", "layers.1.b", "layers.1.a"]
