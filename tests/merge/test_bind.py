from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.errors import PoolError
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings


class Net(nn.Module):
    """Tied weights, a batch norm with an integer buffer, and a buffer that is not saved."""

    def __init__(self, dtype: torch.dtype = torch.float32, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, dtype=dtype)
        self.norm = nn.BatchNorm1d(4, dtype=dtype)
        self.head = nn.Linear(4, 7, bias=False, dtype=dtype)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        if tied:
            self.head.weight = self.embed.weight
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape))
        self.norm.num_batches_tracked.fill_(torch.randint(1, 99, ()).item())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(tokens)))


def pool_of(folder: Path, *nets: nn.Module, tied: bool = True, **settings: Any) -> ModelPool:
    for at, net in enumerate(nets):
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        if tied:
            del state["head.weight"]
        save_file(state, folder / f"{at}.safetensors")
    members = {f"m{at}": f"{at}.safetensors" for at in range(len(nets))}
    return ModelPool.open(PoolSettings(members=members, **settings), folder)


def linear(pool: ModelPool, *weights: float, noise: Noise | None = None) -> Recipe:
    segments = tuple(Segment(group.name, 0, group.size, weights) for group in pool.groups)
    return Recipe("linear", tuple(f"pool:{name}" for name in pool.members), segments, (), noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", ["dense", "table"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_parent_is_written_bit_for_bit(tmp_path: Path, mode: Any, dtype: torch.dtype, which: int) -> None:
    nets = Net(dtype), Net(dtype)
    pool = pool_of(tmp_path, *nets)
    builder, live = Builder(pool, mode), Net(dtype).eval()
    target = bind(live, pool)
    assert (target.flat is not None) == (dtype == torch.float32)
    builder.write(builder.resolve(linear(pool, 1.0 - which, float(which))), target)
    expected = nets[which].state_dict()
    for name, tensor in live.state_dict().items():
        if name == "norm.num_batches_tracked":
            assert torch.equal(tensor, nets[0].norm.num_batches_tracked)
        else:
            same = expected[name].float() if mode == "dense" and dtype == torch.float64 else expected[name]
            assert torch.equal(tensor, same.to(dtype)), name
    assert live.head.weight is live.embed.weight
    assert live(torch.tensor([1, 2])).isfinite().all()


@pytest.mark.parametrize("mode", ["dense", "table"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_write_replaces_the_last(tmp_path: Path, mode: Any, dtype: torch.dtype) -> None:
    pool = pool_of(tmp_path, Net(dtype), Net(dtype))
    builder, live = Builder(pool, mode), Net(dtype)
    target = bind(live, pool)
    seen = []
    for weights in ((0.5, 0.5), (2.0, -1.0), (0.5, 0.5)):
        builder.write(builder.resolve(linear(pool, *weights)), target)
        seen.append(live.embed.weight.detach().clone())
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_writing_keeps_cached_vectors_intact(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, Net(), Net())
    builder, live = Builder(pool, "dense"), Net()
    builder.write(builder.resolve(linear(pool, 1.0, 0.0)), bind(live, pool))
    with torch.no_grad():
        live.embed.weight.fill_(9.0)
    made = builder.resolve(linear(pool, 1.0, 0.0))
    assert np.array_equal(made.values, pool.vector("m0"))  # type: ignore[union-attr]


def test_tied_tensors_stored_twice_are_written_once(tmp_path: Path) -> None:
    nets = Net(), Net()
    pool = pool_of(tmp_path, *nets, tied=False)
    live = Net()
    target = bind(live, pool)
    assert "head.weight" not in target.tensors
    builder = Builder(pool, "dense")
    builder.write(builder.resolve(linear(pool, 0.0, 1.0)), target)
    assert torch.equal(live.head.weight, nets[1].embed.weight)


def test_excluded_tensors_come_from_the_reference_once(tmp_path: Path) -> None:
    nets = Net(torch.bfloat16), Net(torch.bfloat16)
    pool = pool_of(tmp_path, *nets, exclude=("norm.weight",))
    live = Net(torch.bfloat16)
    target = bind(live, pool)
    builder = Builder(pool, "table")
    builder.write(builder.resolve(linear(pool, 0.0, 1.0)), target)
    assert torch.equal(live.norm.weight, nets[0].norm.weight)
    assert torch.equal(live.norm.bias, nets[1].norm.bias)


def test_tensors_that_the_pool_lacks_are_named(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, Net())
    with pytest.raises(PoolError, match=r"'head\.weight' that the pool's checkpoints lack"):
        bind(Net(tied=False), pool)


def test_tensors_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, Net(tied=False), tied=False)
    live = Net()
    del live.norm.weight
    live.norm.register_parameter("weight", None)
    with pytest.raises(PoolError, match=r"'norm\.weight' has no place in the model"):
        bind(live, pool)
    excluded = pool_of(tmp_path, Net(tied=False), tied=False, exclude=("norm.weight",))
    bind(live, excluded)


def test_other_shapes_and_kinds_are_named(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, Net())
    live = Net()
    live.norm.bias = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(PoolError, match=r"'norm\.bias' has shape \[2, 2\] in the model but \[4\]"):
        bind(live, pool)
    live = Net()
    live.norm.running_mean = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(PoolError, match=r"'norm\.running_mean' is torch\.int64 in the model"):
        bind(live, pool)


def test_parameters_that_are_not_contiguous_are_bound(tmp_path: Path) -> None:
    nets = Net(torch.float64), Net(torch.float64)
    pool = pool_of(tmp_path, *nets)
    live = Net(torch.float64)
    live.embed.weight.data = torch.zeros(4, 7, dtype=torch.float64).T
    builder = Builder(pool, "table")
    builder.write(builder.resolve(linear(pool, 1.0, 0.0)), bind(live, pool))
    assert torch.equal(live.embed.weight, nets[0].embed.weight)


def test_tables_stream_through_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.merge import table

    monkeypatch.setattr(table, "CHUNK", 3)
    nets = Net(), Net()
    pool = pool_of(tmp_path, *nets)
    live = Net()
    builder = Builder(pool, "table")
    segments = (Segment("all", 0, 10, (0.5, 0.5)), Segment("all", 10, pool.size, (0.0, 1.0)))
    builder.write(builder.resolve(Recipe("linear", ("pool:m0", "pool:m1"), segments)), bind(live, pool))
    mean = (nets[0].embed.weight.reshape(-1)[:10] + nets[1].embed.weight.reshape(-1)[:10]) / 2
    assert torch.allclose(live.embed.weight.reshape(-1)[:10], mean)
    assert torch.equal(live.norm.weight, nets[1].norm.weight)


@pytest.mark.parametrize("original", [True, False])
def test_fused_experts_need_the_fused_format(tmp_path: Path, original: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        tie_word_embeddings=True,
    )
    net, live = (transformers.MixtralForCausalLM(config) for _ in range(2))
    net.save_pretrained(tmp_path / "x", save_original_format=original)
    pool = ModelPool.open(PoolSettings(members={"x": "x"}), tmp_path)
    if original:
        with pytest.raises(PoolError, match="save_original_format=False"):
            bind(live, pool)
        return
    builder = Builder(pool, "table")
    builder.write(builder.resolve(linear(pool, 1.0)), bind(live, pool))
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in live.state_dict().items())


@pytest.mark.gpu
def test_a_model_on_an_accelerator_gets_the_same_weights(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no accelerator here")
    nets = Net(), Net()
    pool = pool_of(tmp_path, *nets)
    builder = Builder(pool, "dense")
    near, far = Net(), Net().cuda()
    vector = builder.resolve(linear(pool, 0.3, 0.7, noise=Noise(0.1, 0, 0)))
    for live in (near, far):
        builder.write(vector, bind(live, pool))
    assert torch.equal(near.embed.weight, far.embed.weight.cpu())
