from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evomerge.candidate import Recipe, Segment
from evomerge.merge.bind import bind
from evomerge.merge.build import Builder
from evomerge.merge.pool import ModelPool
from evomerge.merge.slopes import Slopes
from evomerge.settings import PoolSettings
from evomerge.testing.adapters import Dense, save_adapter
from evomerge.testing.checkpoints import save_checkpoint

SHAPES = {"one.weight": (7, 5), "one.bias": (7,), "two.weight": (3, 7), "two.bias": (3,)}
GROUPS = {"first": ("one.*",), "second": ("two.*",)}
X = torch.from_numpy(np.random.default_rng(3).standard_normal((20, 5)))
Y = torch.from_numpy(np.random.default_rng(4).integers(0, 3, 20))


class Net(torch.nn.Module):
    """In float64, so that differences of losses are worth something."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(5, 7).double(), torch.nn.Linear(7, 3).double()
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)))


def terms(model: Net) -> Iterator[torch.Tensor]:
    """The mean loss in two batches."""
    for rows in (slice(0, 8), slice(8, 20)):
        yield torch.nn.functional.cross_entropy(model(X[rows]), Y[rows], reduction="sum") / len(X)


def checkpoint(path: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return save_checkpoint(path, tensors)


@pytest.fixture
def full(tmp_path: Path) -> ModelPool:
    names = {name: checkpoint(tmp_path / f"{name}.safetensors", seed).name for seed, name in enumerate("abco")}
    base = names.pop("o")
    return ModelPool.open(PoolSettings(names, base=base, groups=GROUPS), tmp_path)


@pytest.fixture
def adapters(tmp_path: Path) -> ModelPool:
    base = checkpoint(tmp_path / "base.safetensors", 9)
    random = np.random.default_rng(1)
    for name in "ab":
        down, up = random.standard_normal((2, 5)), random.standard_normal((7, 2))
        save_adapter(tmp_path / name, {"one": Dense(up, down, 0.5)})
    return ModelPool.open(PoolSettings({"a": "a", "b": "b"}, base=base.name, groups=GROUPS), tmp_path)


def live(pool: ModelPool, weights: tuple[float, ...]) -> tuple[Net, Slopes]:
    model = Net()
    target = bind(model, pool)
    builder = Builder(pool)
    sources = tuple(f"pool:{name}" for name in pool.sources)
    segments = tuple(Segment(group.name, 0, group.size, weights) for group in pool.groups)
    builder.write(builder.resolve(Recipe("linear", sources, segments)), target)
    return model, Slopes(model, target, pool)


def by_differences(model: Net, pool: ModelPool, step: float = 1e-5) -> np.ndarray:
    """Losses a small step towards each model, and away from it, group by group."""
    towards = (*pool.members, *(() if pool.base is None else (pool.base,)))
    found = np.zeros((len(pool.groups), len(towards)))
    start = {name: tensor.clone() for name, tensor in model.named_parameters()}
    for row, group in enumerate(pool.groups):
        for column, source in enumerate(towards):
            losses = []
            for sign in (1, -1):
                for slot in pool.slots[group.name]:
                    there = torch.from_numpy(pool.checkpoints[source].floats(slot.name)).view(slot.shape)
                    here = start[slot.name]
                    model.get_parameter(slot.name).data.copy_(here + sign * step * (there - here))
                losses.append(sum(term.item() for term in terms(model)))
                for name, tensor in start.items():
                    model.get_parameter(name).data.copy_(tensor)
            found[row, column] = (losses[0] - losses[1]) / (2 * step)
    return found


@pytest.mark.parametrize("kind", ["full", "adapters"])
def test_slopes_are_finite_differences(kind: str, request: pytest.FixtureRequest) -> None:
    pool: ModelPool = request.getfixturevalue(kind)
    weights = np.random.default_rng(5).dirichlet(np.ones(len(pool.sources)))
    model, slopes = live(pool, tuple(weights.tolist()))
    found = slopes(terms(model))
    assert found.shape == (2, len(pool.members) + 1)
    np.testing.assert_allclose(found, by_differences(model, pool), rtol=1e-4, atol=1e-7)


def test_towards_the_model_itself_nothing_changes(full: ModelPool) -> None:
    model, slopes = live(full, (0.0, 1.0, 0.0, 0.0))
    found = slopes(terms(model))
    assert (found[:, 1] == 0.0).all()
    assert (found[:, [0, 2, 3]] != 0.0).all()


def test_the_weighted_sum_of_slopes_over_a_mixture_is_zero(full: ModelPool) -> None:
    """sum_i lambda_i (theta_i - theta) = 0 where theta is the mixture."""
    weights = (0.1, 0.2, 0.3, 0.4)
    model, slopes = live(full, weights)
    np.testing.assert_allclose(slopes(terms(model)) @ weights, 0.0, atol=1e-6)


def test_threads_change_no_bit_and_the_model_is_left_as_it_was(full: ModelPool) -> None:
    model, slopes = live(full, (0.25, 0.25, 0.25, 0.25))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    threaded = Slopes(model, bind(model, full), full, threads=3)
    for name, tensor in before.items():
        model.get_parameter(name).data.copy_(tensor)
    one, three = slopes(terms(model)), threaded(terms(model))
    assert one.tobytes() == three.tobytes()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_what_is_not_merged_has_no_slope(tmp_path: Path, full: ModelPool) -> None:
    settings = PoolSettings({"a": "a.safetensors", "b": "b.safetensors"}, exclude=("two.*",))
    part = ModelPool.open(settings, tmp_path)
    model = Net()
    target = bind(model, part)
    target.put(part.vector("a"))
    for name, tensor in target.tensors.items():
        tensor.copy_(torch.from_numpy(part.checkpoints["a"].floats(name)))
    found = Slopes(model, target, part)(terms(model))
    assert found.shape == (1, 2)
    same = ModelPool.open(PoolSettings({"a": "a.safetensors", "b": "b.safetensors"}, groups=GROUPS), tmp_path)
    whole, slopes = live(same, (1.0, 0.0))
    np.testing.assert_allclose(found[0], slopes(terms(whole))[0], rtol=1e-6)


def test_a_broken_loss_leaves_no_gradients(full: ModelPool) -> None:
    model, slopes = live(full, (1.0, 0.0, 0.0, 0.0))

    def broken() -> Iterator[Any]:
        yield next(terms(model))
        raise ValueError("no more data")

    calls: Callable[[], Any] = lambda: slopes(broken())  # noqa: E731 - pytest.raises takes one statement
    with pytest.raises(ValueError, match="no more data"):
        calls()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
