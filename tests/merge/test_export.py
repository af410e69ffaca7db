import errno
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from evomerge import codec
from evomerge.candidate import Noise, Recipe, Segment
from evomerge.errors import ExportError
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint


def halves(pool: ModelPool, noise: Noise | None = None) -> Recipe:
    """One half of the vector more of the first member, the other more of the second."""
    segments = tuple(
        segment
        for group in pool.groups
        for segment in (
            Segment(group.name, 0, group.size // 2, (0.25, 0.75)),
            Segment(group.name, group.size // 2, group.size, (0.75, 0.25)),
        )
    )
    return Recipe("linear", tuple(f"pool:{name}" for name in pool.members[:2]), segments, (), noise)


class TestTransformers:
    @pytest.fixture(params=["llama", "vit"])
    def kind(self, request: pytest.FixtureRequest) -> Any:
        transformers = pytest.importorskip("transformers")
        if request.param == "llama":
            config = transformers.LlamaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
            )
            return transformers.LlamaForCausalLM, config
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=8,
            patch_size=4,
            num_labels=3,
        )
        return transformers.ViTForImageClassification, config

    @pytest.fixture
    def pool(self, kind: Any, tmp_path: Path) -> ModelPool:
        architecture, config = kind
        for name in ("x", "y"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                architecture(config).to(torch.bfloat16).save_pretrained(tmp_path / name)
            (tmp_path / name / "tokenizer_config.json").write_text("{}")
            (tmp_path / name / "modeling_own.py").write_text("raise SystemExit")
        return ModelPool.open(PoolSettings(members={"x": "x", "y": "y"}), tmp_path)

    @pytest.mark.parametrize("shard_bytes", [5_000_000_000, 2_000])
    @pytest.mark.parametrize("dtype", [None, "float32"])
    def test_loads_and_equals_the_model_built_in_place(
        self, kind: Any, pool: ModelPool, tmp_path: Path, dtype: str | None, shard_bytes: int
    ) -> None:
        architecture, config = kind
        builder = Builder(pool, "table")
        out = tmp_path / "out"
        export(builder, halves(pool), (), out, card="# card", dtype=dtype, shard_bytes=shard_bytes)
        kept = torch.float32 if dtype else torch.bfloat16
        loaded = architecture.from_pretrained(out, dtype=kept)
        live = architecture(config).to(kept)
        builder.write(builder.resolve(halves(pool)), bind(live, pool))
        assert live.state_dict().keys() == loaded.state_dict().keys()
        for name, tensor in live.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        assert json.loads((out / "config.json").read_text())["dtype"] == str(kept).split(".")[1]
        assert (out / "README.md").read_text() == "# card"
        assert (out / "tokenizer_config.json").exists()
        assert not list(out.glob("*.py"))
        assert len(list(out.glob("*.safetensors"))) > 1 or shard_bytes > 2_000
        again = ModelPool.open(PoolSettings(members={"out": str(out)}), tmp_path)
        again.check()
        assert again.size == pool.size


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    random = np.random.default_rng(0)
    for at in range(2):
        tensors = {
            "w": random.standard_normal((6, 5)).astype(np.float32),
            "half": random.standard_normal(4).astype(np.float16),
            "steps": np.array([at, 7]),
            "flag": np.array([True]),
        }
        save_checkpoint(tmp_path / f"{at}.safetensors", tensors)
    return ModelPool.open(PoolSettings(members={"x": "0.safetensors", "y": "1.safetensors"}), tmp_path)


@pytest.mark.parametrize("mode", ["dense", "table"])
def test_every_tensor_keeps_its_storage(pool: ModelPool, tmp_path: Path, mode: Any) -> None:
    export(Builder(pool, mode), halves(pool), (), tmp_path / "out", card="")
    made = Checkpoint(tmp_path / "out")
    assert {name: entry.dtype for name, entry in made.entries.items()} == {
        name: entry.dtype for name, entry in pool.checkpoints["x"].entries.items()
    }
    assert made.stored("steps").tolist() == [0, 7]
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("w").shape == (6, 5)


@pytest.mark.parametrize("mode", ["dense", "table"])
def test_recipe_file_is_enough_to_build_the_model_again(pool: ModelPool, tmp_path: Path, mode: Any) -> None:
    first = halves(pool)
    last = Recipe("slerp", (f"recipe:{first.digest}", "pool:y"), (Segment("all", 0, pool.size, (0.3,)),))
    export(Builder(pool, mode), last, (first,), tmp_path / "out", card="")
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())
    recipe, *ancestors = (codec.load(Recipe, json.dumps(one)) for one in (told["recipe"], *told["ancestors"]))
    assert (recipe, ancestors) == (last, [first])
    assert told["source_digests"] == pool.digests()
    export(Builder(pool, mode), recipe, ancestors, tmp_path / "again", card="")
    files = [tmp_path / name / "model.safetensors" for name in ("out", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    vectors = np.stack([pool.vector(name) for name in pool.sources])
    flat = np.concatenate(
        [np.array(row["coefficients"]) @ vectors[:, row["start"] : row["stop"]] for row in told["coefficients"]["all"]]
    )
    made = Checkpoint(tmp_path / "out")
    np.testing.assert_allclose(made.floats("w"), flat[4:], rtol=1e-5)


def test_mutated_models_have_no_coefficients(pool: ModelPool, tmp_path: Path) -> None:
    export(Builder(pool), halves(pool, Noise(0.1, 0, 0)), (), tmp_path / "out", card="")
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["coefficients"] is None


def test_only_an_empty_place_is_written_to(pool: ModelPool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(Builder(pool), halves(pool), (), out, card="")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ExportError, match="not empty"):
        export(Builder(pool), halves(pool), (), out, card="other")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(ExportError, match="not empty"):
        export(Builder(pool), halves(pool), (), tmp_path / "0.safetensors", card="")


def test_a_full_disk_leaves_nothing(pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match="No space left"):
        export(Builder(pool), halves(pool), (), tmp_path / "out", card="")
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupt_leaves_nothing(pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(pool)
    fill = builder.materializer.fill

    def interrupted(vectors: Any, slot: Any, start: int, room: Any) -> None:
        if slot.name == "w":
            raise KeyboardInterrupt
        fill(vectors, slot, start, room)

    monkeypatch.setattr(builder.materializer, "fill", interrupted)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export(builder, halves(pool), (), tmp_path / "out", card="")
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_and_too_small_dtypes_are_refused(pool: ModelPool, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose one of float64"):
        export(Builder(pool), halves(pool), (), tmp_path / "out", card="", dtype="int8")
    large = Recipe("linear", ("pool:x",), (Segment("all", 0, pool.size, (1e6,)),))
    with pytest.raises(ExportError, match="beyond float16"):
        export(Builder(pool), large, (), tmp_path / "out", card="", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_real_llama_survives_the_round_trip(shared: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shared / "stories260K" / "hf"
    pool = ModelPool.open(PoolSettings(members={"stories": str(folder)}), tmp_path)
    whole = Recipe("linear", ("pool:stories",), (Segment("all", 0, pool.size, (1.0,)),))
    export(Builder(pool), whole, (), tmp_path / "out", card="")
    tokens = torch.tensor([[1, 403, 407, 261]])
    with torch.no_grad():
        one, two = (
            transformers.LlamaForCausalLM.from_pretrained(path)(tokens).logits for path in (folder, tmp_path / "out")
        )
    assert torch.equal(one, two)
    assert Checkpoint(tmp_path / "out").digest() == pool.digests()["stories"]
