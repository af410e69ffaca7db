import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from evomerge.candidate import Recipe, Segment
from evomerge.errors import ExportError, PoolError
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.merge.views.quantised import Multiplied, whole_precision
from evomerge.settings import PoolSettings

KINDS = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def save(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def eight(*shape: int, kind: torch.dtype = torch.float8_e4m3fn, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def blown_up(scale: torch.Tensor, shape: tuple[int, int], block: tuple[int, int]) -> torch.Tensor:
    """A scale for each element, written out."""
    if scale.numel() == 1:
        return scale.reshape(1, 1).expand(shape)
    if scale.numel() == shape[0]:
        return scale.reshape(-1, 1).expand(shape)
    return torch.tensor([[scale[i // block[0], j // block[1]] for j in range(shape[1])] for i in range(shape[0])])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    how=st.sampled_from(["none", "tensor", "scalar", "rows", "column", "blocks"]),
    kind=st.sampled_from(sorted(KINDS)),
    name=st.sampled_from(["weight_scale", "weight_scale_inv"]),
    data=st.data(),
)
def test_weights_are_multiplied_by_their_scales(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], how: str, kind: str, **drawn: Any
) -> None:
    folder, block = tmp_path_factory.mktemp("x"), (3, 4)
    blocks = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    sizes = {"tensor": (1,), "scalar": (), "rows": shape[:1], "column": (shape[0], 1), "blocks": blocks}
    weight = eight(*shape, kind=KINDS[kind])
    tensors = {"q.weight": weight, "norm.weight": torch.randn(5).bfloat16()}
    scale = torch.ones(1) if how == "none" else torch.rand(sizes[how]) + 0.5
    if how != "none":
        tensors[f"q.{drawn['name']}"] = scale
    save(folder, tensors, quantization_config={"weight_block_size": list(block)}, torch_dtype="bfloat16")
    found = Multiplied(Checkpoint(folder))
    if how == "blocks" and scale.numel() in (1, shape[0]):
        return  # a single column of blocks of one row looks like rows
    expected = weight.float() * blown_up(scale, shape, block)
    assert found.entries.keys() == {"q.weight", "norm.weight"}
    assert np.array_equal(found.floats("q.weight"), expected.numpy().ravel())
    assert found.stored("norm.weight").tobytes() == tensors["norm.weight"].view(torch.uint8).numpy().tobytes()
    assert (found.export_dtype("q.weight"), found.export_dtype("norm.weight")) == ("BF16", "BF16")
    assert found.config() == {"torch_dtype": "bfloat16"}
    cuts = sorted({0, weight.numel(), *drawn["data"].draw(st.lists(st.integers(0, weight.numel()), max_size=4))})
    pieces = [found.floats("q.weight", start, stop) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), expected.numpy().ravel())


def test_blocks_are_128_wide_where_nothing_is_said(tmp_path: Path) -> None:
    weight, scale = eight(130, 260), torch.rand(2, 3) + 0.5
    found = Multiplied(Checkpoint(save(tmp_path, {"q.weight": weight, "q.weight_scale_inv": scale})))
    expected = weight.float() * blown_up(scale, (130, 260), (128, 128))
    assert np.array_equal(found.floats("q.weight"), expected.numpy().ravel())


def test_scales_of_activations_are_left_out(tmp_path: Path) -> None:
    tensors = {"q.weight": eight(2, 2), "q.input_scale": torch.ones(1), "attn.k_scale": torch.ones(1)}
    assert Multiplied(Checkpoint(save(tmp_path, tensors))).entries.keys() == {"q.weight"}


def test_other_checkpoints_are_themselves(tmp_path: Path) -> None:
    checkpoint = Checkpoint(save(tmp_path, {"q.weight": torch.ones(2, 2), "q.weight_scale": torch.ones(1)}))
    assert whole_precision(checkpoint) is checkpoint


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"q.weight_scale": torch.ones(3)}, r"'q\.weight_scale' \(F32 \[3\]\) is neither .* \[4, 6\].*dequantize"),
        ({"q.weight_scale": torch.ones(4, dtype=torch.int32)}, r"I32"),
        ({"q.weight_scale": torch.ones(1), "q.weight_scale_inv": torch.ones(1)}, "has two scales"),
        ({"v.weight": torch.ones(4, dtype=torch.int8)}, r"'v\.weight' is stored as I8, which quantised weights are"),
        ({"v.qweight": torch.ones(4, dtype=torch.int32)}, r"'v\.qweight' is stored as I32"),
    ],
)
def test_other_quantisation_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    checkpoint = Checkpoint(save(tmp_path, {"q.weight": eight(4, 6), **tensors}))
    with pytest.raises(PoolError, match=words):
        whole_precision(checkpoint)


class TestPool:
    """Models of all precisions in one pool."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        shapes = {"layers.0.q.weight": (8, 6), "norm.weight": (6,)}
        for seed, kind in enumerate((torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)):
            torch.manual_seed(seed)
            tensors = {name: torch.randn(shape).to(kind) for name, shape in shapes.items()}
            config = {"dtype": "bfloat16"}
            if kind == torch.float8_e4m3fn:
                tensors |= {"layers.0.q.weight_scale": torch.rand(8, 1), "norm.weight": torch.randn(6).bfloat16()}
                config["quantization_config"] = {"quant_method": "fp8"}  # type: ignore[assignment]
            save(tmp_path / str(kind).removeprefix("torch."), tensors, **config)
        return tmp_path

    def pool(self, folder: Path, *names: str) -> ModelPool:
        pool = ModelPool.open(PoolSettings(members={name: name for name in names}), folder)
        pool.check()
        pool.check_finite()
        return pool

    def test_they_merge_in_float32(self, folder: Path) -> None:
        names = ("float32", "bfloat16", "float16", "float8_e4m3fn")
        pool = self.pool(folder, *names)
        recipe = Recipe("linear", tuple(f"pool:{name}" for name in names), (Segment("all", 0, 54, (0.25,) * 4),))
        for mode in ("table", "dense"):
            builder = Builder(pool, mode)  # type: ignore[arg-type]
            vector = builder.resolve(recipe)
            for slot in pool.layout.slots:
                expected = sum(pool.checkpoints[name].floats(slot.name).astype(np.float64) for name in names) / 4
                np.testing.assert_allclose(builder.read(vector, slot, 0, slot.size), expected, rtol=1e-6, atol=1e-6)

    def test_eight_bits_are_written_as_the_config_says(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        pool = self.pool(folder, "float8_e4m3fn", "float32")
        recipe = Recipe("linear", ("pool:float8_e4m3fn",), (Segment("all", 0, 54, (1.0,)),))
        export(Builder(pool), recipe, (), folder / "out", card="")
        out = Checkpoint(folder / "out")
        assert {entry.dtype for entry in out.entries.values()} == {"BF16"}
        assert out.config() == {"dtype": "bfloat16"}
        np.testing.assert_allclose(
            out.floats("layers.0.q.weight"), pool.checkpoints["float8_e4m3fn"].floats("layers.0.q.weight"), rtol=4e-3
        )
        with pytest.raises(ExportError, match="unknown dtype 'float8_e4m3fn'; choose one of float64, float32"):
            export(Builder(pool), recipe, (), folder / "other", card="", dtype="float8_e4m3fn")
