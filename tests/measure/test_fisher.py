from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evomerge.errors import MeasureError
from evomerge.measure.fisher import fisher

Information = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def mlp(classes: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, classes))


def inputs(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def exact(model: nn.Module, x: torch.Tensor) -> Information:
    """Every class of every example, one gradient at a time, in float64."""
    double = mlp(model[-1].out_features).double().eval()  # type: ignore[index, union-attr]
    double.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    found = {name: torch.zeros_like(tensor) for name, tensor in double.named_parameters()}
    for row in x.double():
        for y in range(double[-1].out_features):  # type: ignore[arg-type]
            double.zero_grad()
            log_p = double(row[None])[0].log_softmax(-1)[y]
            log_p.backward()
            for name, tensor in double.named_parameters():
                assert tensor.grad is not None
                found[name] += log_p.detach().exp() * tensor.grad**2 / len(x)
    return {name: tensor.numpy() for name, tensor in found.items()}


def compare(one: Information, two: Information, **tolerance: float) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], **tolerance)


def test_over_all_classes_it_is_the_definition() -> None:
    compare(fisher(mlp(), [inputs(7)], "exact"), exact(mlp(), inputs(7)), rtol=1e-4, atol=1e-9)


def test_sampled_labels_tend_to_it() -> None:
    x = inputs(1).repeat(2000, 1)
    found, expected = fisher(mlp(), [x]), exact(mlp(), inputs(1))
    for name, array in expected.items():
        # one label's square is at most 1 / p times the mean, so 2000 of them deviate by less than a twentieth of it
        np.testing.assert_allclose(found[name], array, rtol=0.35, atol=1e-6)


def test_draws_follow_the_seed() -> None:
    one, again, other = (fisher(mlp(), [inputs(5)], seed=seed) for seed in (1, 1, 2))
    compare(one, again)
    assert not all(np.array_equal(one[name], other[name]) for name in one)


def test_given_labels_are_squared_example_by_example() -> None:
    model, x, y = mlp().eval(), inputs(3), torch.tensor([0, 2, 1])
    expected = {name: np.zeros(tensor.shape) for name, tensor in model.named_parameters()}
    for row, label in zip(x, y, strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(row[None]), label[None]).backward()
        for name, tensor in model.named_parameters():
            assert tensor.grad is not None
            expected[name] += tensor.grad.numpy() ** 2 / 3
    compare(fisher(model, [(x, y)], "given"), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("labels", ["exact", "sampled"])
def test_how_examples_are_batched_does_not_matter(labels: Any) -> None:
    x = inputs(6)
    compare(fisher(mlp(), [x], labels), fisher(mlp(), [x[:1], x[1:4], x[4:]], labels), rtol=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model = mlp().train()
    model[0].weight.requires_grad_(False)
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = fisher(model, [inputs(2)])
    assert found["0.weight"].any()
    assert [model[at].training for at in range(4)] == [True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_no_gradient_reaches_has_zeros() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 2), nn.Linear(3, 3)
            self.register_buffer("mean", torch.ones(2))
            self.register_buffer("steps", torch.ones(1, dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> Any:
            return self.used(x)

    found = fisher(Half(), [inputs(2)])
    assert found.keys() == {"used.weight", "used.bias", "unused.weight", "unused.bias", "mean"}
    assert found["used.weight"].any()
    assert not any(found[name].any() for name in ("unused.weight", "unused.bias", "mean"))


def llama(tied: bool = False) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def padded() -> dict[str, torch.Tensor]:
    tokens, mask = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    return {"input_ids": tokens, "attention_mask": mask}


def test_a_language_models_own_tokens_are_targets_and_padding_does_not_count() -> None:
    model = llama()
    apart = [{"input_ids": padded()["input_ids"][:1]}, {"input_ids": padded()["input_ids"][1:, :3]}]
    compare(
        fisher(model, [padded()], "given", causal=True),
        fisher(model, apart, "given", causal=True),
        rtol=1e-3,
        atol=1e-9,
    )
    expected = np.zeros(model.lm_head.weight.shape)
    for one in apart:
        tokens = one["input_ids"]
        log_p = model(input_ids=tokens).logits[0, :-1].log_softmax(-1).gather(-1, tokens[0, 1:, None]).sum()
        expected += torch.autograd.grad(log_p, model.lm_head.weight)[0].numpy() ** 2 / 2
    np.testing.assert_allclose(
        fisher(model, [padded()], "given", causal=True)["lm_head.weight"], expected, rtol=1e-3, atol=1e-9
    )


def test_sampled_tokens_count_at_every_position_but_padding() -> None:
    model = llama()
    short = fisher(model, [{key: value[1:] for key, value in padded().items()}])
    alone = fisher(model, [{"input_ids": padded()["input_ids"][1:, :3]}])
    compare(short, alone, rtol=1e-3, atol=1e-9)
    assert short["lm_head.weight"].any()


def test_classes_that_are_impossible_do_not_count() -> None:
    class Barred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + torch.tensor([0.0, 0.0, -torch.inf])

    found = fisher(Barred(), [inputs(3)], "exact")["inner.weight"]
    assert found[:2].all()
    assert not found[2].any()


def test_tied_weights_have_one_information_under_both_names() -> None:
    found = fisher(llama(tied=True), [padded()])
    assert found["lm_head.weight"] is found["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fisher(mlp(), []), "no examples"),
        (lambda: fisher(mlp(), [inputs(2)], "given"), "no targets"),
        (lambda: fisher(mlp(), [(inputs(2), torch.tensor([0, 3]))], "given"), "target 3 is none of the 3 classes"),
        (lambda: fisher(mlp(), [(inputs(2), torch.zeros(2))], "given"), "do not fit"),
        (lambda: fisher(mlp(), [inputs(2)], "guessed"), "'guessed'"),  # type: ignore[arg-type]
        (lambda: fisher(mlp(), [3.0]), "a batch is a float"),
        (lambda: fisher(llama(), [padded()], "exact"), "5 predictions"),
        (lambda: fisher(mlp(), [torch.full((1, 4), torch.nan)]), "predictions are not finite"),
        (lambda: fisher(Steep(), [inputs(1)]), "gradients of 'inner.weight' are not finite"),
        (lambda: fisher(nn.Linear(4, 1), [{"input": 3}]), "no tensor"),
        (lambda: fisher(Odd(), [inputs(1)]), "instead of logits"),
    ],
)
def test_what_cannot_be_measured_is_told(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(MeasureError, match=words):
        call()


class Steep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return (y - y.detach()).abs().sqrt()


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return "yes"
