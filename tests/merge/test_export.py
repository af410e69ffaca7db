import errno
import json
import os
import shutil
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
from evomerge.merge import export as export_module
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import Order, export, export_many
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


class TestBytes:
    """A file's bytes depend on the recipe alone."""

    @pytest.fixture
    def pool(self, tmp_path: Path) -> ModelPool:
        """Several pieces of work per file, of several dtypes, with a tensor that is not merged."""
        random = np.random.default_rng(1)
        for name in ("x", "y"):
            tensors = {f"layers.{at}.w": random.standard_normal((40, 40)).astype(np.float32) for at in range(6)}
            tensors["half"] = random.standard_normal(999).astype(np.float16)
            tensors["count"] = np.arange(3000)
            save_checkpoint(tmp_path / f"{name}.safetensors", tensors)
        return ModelPool.open(PoolSettings(members={"x": "x.safetensors", "y": "y.safetensors"}), tmp_path)

    def recipes(self, pool: ModelPool) -> list[Recipe]:
        near = Recipe("nearswap", ("pool:x", "pool:y"), (Segment("all", 0, pool.size, (1e-2,)),))
        return [halves(pool), near, halves(pool, Noise(0.1, 0, 0))]

    def made(self, pool: ModelPool, recipe: Recipe, out: Path, threads: int = 1, **options: Any) -> dict[str, bytes]:
        export(Builder(pool, threads=threads), recipe, (), out, card="", **options)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    @pytest.mark.parametrize("which", [0, 1, 2])
    @pytest.mark.parametrize("dtype", [None, "bfloat16"])
    def test_neither_threads_nor_pieces_change_them(
        self, pool: ModelPool, tmp_path: Path, which: int, dtype: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = self.recipes(pool)[which]
        before = self.made(pool, recipe, tmp_path / "before", dtype=dtype)
        monkeypatch.setattr(export_module, "_STEP", 4096)
        for threads in (1, 2, 5):
            assert self.made(pool, recipe, tmp_path / str(threads), threads, dtype=dtype) == before

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_shards_hold_the_same_tensors(self, pool: ModelPool, tmp_path: Path, which: int) -> None:
        recipe = self.recipes(pool)[which]
        self.made(pool, recipe, tmp_path / "one")
        self.made(pool, recipe, tmp_path / "many", threads=2, shard_bytes=9_000)
        assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
        one, many = Checkpoint(tmp_path / "one"), Checkpoint(tmp_path / "many")
        assert one.digest() == many.digest()

    def test_several_at_once_are_each_what_it_is_alone(
        self, pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_module, "_STEP", 4096)
        recipes = self.recipes(pool)
        alone = [self.made(pool, recipe, tmp_path / f"alone{at}") for at, recipe in enumerate(recipes)]
        told: list[int] = []
        orders = [Order(recipe, (), tmp_path / f"both{at}", "") for at, recipe in enumerate(recipes)]
        export_many(Builder(pool, threads=2), orders, progress=told.append)
        assert [{path.name: path.read_bytes() for path in order.out.iterdir()} for order in orders] == alone
        assert sum(told) == sum(len(one["model.safetensors"]) for one in alone)

    def test_one_place_that_is_taken_spares_them_all(self, pool: ModelPool, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").touch()
        before = sorted(tmp_path.rglob("*"))
        orders = [Order(halves(pool), (), tmp_path / name, "") for name in ("free", "taken")]
        with pytest.raises(ExportError, match="not empty"):
            export_many(Builder(pool), orders)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_room_is_named_before_anything_is_computed(
    pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match="needs 145 bytes, but the disk has 100; make room"):
        export(Builder(pool), halves(pool), (), tmp_path / "out", card="")
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_fills_half_way_leaves_nothing(
    pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, buffer: memoryview, start: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match="No space left"):
        export(Builder(pool, threads=2), halves(pool), (), tmp_path / "out", card="")
    assert sorted(tmp_path.iterdir()) == before


def test_infinity_in_what_is_copied_is_the_models_own_affair(tmp_path: Path) -> None:
    mask = np.array([0.0, -np.inf], np.float16)
    save_checkpoint(tmp_path / "x.safetensors", {"w": np.ones(3, np.float32), "mask": mask})
    pool = ModelPool.open(PoolSettings(members={"x": "x.safetensors"}, exclude=("mask",)), tmp_path)
    whole = Recipe("linear", ("pool:x",), (Segment("all", 0, 3, (1.0,)),))
    export(Builder(pool), whole, (), tmp_path / "out", card="")
    assert Checkpoint(tmp_path / "out").stored("mask").tobytes() == mask.tobytes()


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
