import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from evomerge.errors import PoolError
from evomerge_fitness.mlp import MLP, Logits, MLPConfig, load_mlp, read_config, save_mlp


def filled(config: MLPConfig, seed: int = 0) -> MLP:
    model = MLP(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def by_hand(model: MLP, x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    layers = model.affines()
    for k, layer in enumerate(layers):
        x = x @ layer.weight.double() + layer.bias.double()
        if k < len(layers) - 1:
            x = x.relu() if model.config.activation == "relu" else x.tanh()
    return x


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    activation=st.sampled_from(["relu", "tanh"]),
    rows=st.integers(1, 70),
    batch=st.integers(0, 40),
    seed=st.integers(0, 1000),
)
def test_fused_logits_equal_the_module_and_the_definition(
    sizes: list[int], activation: str, rows: int, batch: int, seed: int
) -> None:
    model = filled(MLPConfig(tuple(sizes), activation), seed)
    x = torch.randn(rows, sizes[0], generator=torch.Generator().manual_seed(seed))
    fused = Logits(model.config, x, batch)
    with torch.inference_mode():
        fused(filled(model.config, seed + 1))
        logits = fused(model)
    scale = float(by_hand(model, x).abs().max()) + 1
    torch.testing.assert_close(logits.t().double() / scale, by_hand(model, x) / scale, rtol=0, atol=2e-5)
    torch.testing.assert_close(logits.t() / scale, model(x) / scale, rtol=0, atol=2e-5)


def test_stacked_is_a_view_in_place_and_a_copy_otherwise() -> None:
    layer = filled(MLPConfig((3, 4))).affines()[0]
    expected = torch.cat([layer.weight, layer.bias[None]])
    assert layer.stacked().data_ptr() == layer.weight.data_ptr()
    torch.testing.assert_close(layer.stacked(), expected, rtol=0, atol=0)
    layer.bias = torch.nn.Parameter(layer.bias.clone(), requires_grad=False)
    torch.testing.assert_close(layer.stacked(), expected, rtol=0, atol=0)


def test_a_folder_comes_back_as_saved(tmp_path: Path) -> None:
    model = filled(MLPConfig((5, 7, 3), "tanh"))
    save_mlp(tmp_path / "model", model.state_dict(), (5, 7, 3), "tanh")
    loaded = load_mlp(tmp_path / "model")
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert list(loaded.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "model_type"),
        ('{"model_type": "bert"}', "no MLP checkpoint"),
        ('{"model_type": "evomerge_mlp"}', "no list layer_sizes"),
        ('{"model_type": "evomerge_mlp", "layer_sizes": [4]}', "at least two"),
        ('{"model_type": "evomerge_mlp", "layer_sizes": [4, 0]}', "positive"),
        ('{"model_type": "evomerge_mlp", "layer_sizes": [4, true]}', "positive whole numbers"),
        ('{"model_type": "evomerge_mlp", "layer_sizes": [4, 2], "activation": "gelu"}', "known are relu, tanh"),
        (None, "has no config.json"),
    ],
)
def test_bad_configs_are_refused(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(PoolError, match=message):
        read_config(tmp_path)


def test_wrong_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evomerge_mlp", "layer_sizes": [2, 3]}))
    path = tmp_path / "model.safetensors"
    with pytest.raises(PoolError, match="cannot read"):
        load_mlp(tmp_path)
    path.write_bytes(b"\x10\x00\x00")
    with pytest.raises(PoolError, match="cannot read"):
        load_mlp(tmp_path)
    right = {"layers.0.weight": torch.zeros(2, 3), "layers.0.bias": torch.zeros(3)}
    for tensors, message in (
        ({"layers.0.weight": torch.zeros(2, 3)}, r"lacks layers\.0\.bias"),
        (right | {"more": torch.zeros(1)}, "should not have more"),
        (right | {"layers.0.weight": torch.zeros(3, 2)}, r"layers\.0\.weight is \(3, 2\).*wants \(2, 3\)"),
        (right | {"layers.0.bias": torch.zeros(3, dtype=torch.float16)}, "float16"),
    ):
        save_file(tensors, path)
        with pytest.raises(PoolError, match=message):
            load_mlp(tmp_path)
