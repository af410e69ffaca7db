from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evomerge.errors import MeasureError
from evomerge.measure.activations import activations


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 5), nn.Dropout(0.5), nn.ReLU(), nn.Linear(5, 3))


def inputs(count: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def test_means_are_those_of_the_sizes_of_each_layers_inputs() -> None:
    model, x = mlp().eval(), inputs(9)
    found = activations(mlp().train(), [x[:2], x[2:]])
    assert found.keys() == {"0.weight", "1.weight", "4.weight"}
    with torch.no_grad():
        for name, seen in (("0.weight", x), ("1.weight", model[0](x)), ("4.weight", model[:4](x))):
            np.testing.assert_allclose(found[name], seen.abs().double().mean(0), rtol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = mlp().train()
    activations(model, [inputs(2)])
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def transformer(kind: str, **options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=11, n_positions=9, n_embd=8, n_layer=1, n_head=2, **options)
        return transformers.GPT2LMHeadModel(config)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=11, **sizes, **options))


def test_padding_does_not_count() -> None:
    tokens, mask = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    model = transformer("llama", tie_word_embeddings=False)
    found = activations(model, [{"input_ids": tokens, "attention_mask": mask}])
    apart = activations(model, [{"input_ids": tokens[:1]}, {"input_ids": tokens[1:, :3]}])
    assert found.keys() == apart.keys()
    for name, means in found.items():
        np.testing.assert_allclose(means, apart[name], rtol=1e-4)


def test_a_language_models_linear_layers_and_norms_are_measured_but_no_embeddings() -> None:
    tokens = {"input_ids": torch.tensor([[1, 2, 3]])}
    model = transformer("llama", tie_word_embeddings=False)
    matrices = {name for name, tensor in model.state_dict().items() if tensor.ndim == 2}
    norms = {name for name, tensor in model.state_dict().items() if tensor.ndim == 1}
    assert activations(model, [tokens]).keys() == (matrices | norms) - {"model.embed_tokens.weight"}
    tied = activations(transformer("llama", tie_word_embeddings=True), [tokens])
    assert tied.keys() == (matrices | norms) - {"model.embed_tokens.weight", "lm_head.weight"}


def test_layers_with_turned_weights_have_turned_means() -> None:
    model = transformer("gpt2")
    found = activations(model, [{"input_ids": torch.tensor([[1, 2, 3]])}])
    weight = model.transformer.h[0].mlp.c_fc.weight
    assert found["transformer.h.0.mlp.c_fc.weight"].shape == (weight.shape[0], 1)
    assert found["transformer.h.0.ln_1.weight"].shape == (8,)


def test_layers_that_are_never_reached_are_left_out() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.used(input=x)

    assert activations(Half(), [inputs(2)]).keys() == {"used.weight"}


@pytest.mark.parametrize(
    ("examples", "words"), [([], "no examples"), ([torch.full((1, 4), torch.inf)], "'0.weight' are not finite")]
)
def test_what_cannot_be_measured_is_told(examples: list[Any], words: str) -> None:
    with pytest.raises(MeasureError, match=words):
        activations(mlp(), examples)
