from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Values, operator
from evomerge.testing.operator import OperatorContract, Whole
from tests.merge.operators.tasks import Matrix, merged, taus

few = settings(max_examples=25, deadline=None)
STEPS = 50


def projector(of: Sequence[Matrix], share: float) -> Matrix:
    """Onto the shared subspace."""
    rank = min(of[0].shape)
    fair = max(1, rank // len(of))
    lefts = np.hstack([np.linalg.svd(one, full_matrices=False)[0][:, :fair] for one in of])
    shared = np.linalg.svd(lefts, full_matrices=False)[0][:, : int(share * rank + 1e-9)]
    return np.asarray(shared @ shared.T)


def lambdas(of: Sequence[Any], eta: float) -> list[float]:
    return [eta / float(np.linalg.norm(one)) for one in of]


def loss(of: Sequence[Matrix], lengths: Sequence[float], delta: Matrix) -> float:
    merge = sum(length * (one + delta) for length, one in zip(lengths, of, strict=True))
    return float(sum(((one * (one - merge)).sum(axis=1) ** 2).sum() for one in of))


def descend(of: Sequence[Matrix], eta: float, share: float, steps: int) -> Matrix:
    """Delta by the gradient of the loss itself."""
    lengths = lambdas(of, eta)
    total = sum(lengths)
    steepest = max(
        float(np.linalg.eigvalsh(sum(np.outer(one[r], one[r]) for one in of))[-1]) for r in range(len(of[0]))
    )
    delta = np.zeros_like(of[0])
    for _ in range(steps):
        merge = sum(length * (one + delta) for length, one in zip(lengths, of, strict=True))
        gradient = -2 * total * sum((one * (one - merge)).sum(axis=1, keepdims=True) * one for one in of)
        delta -= (gradient - projector(of, share) @ gradient) / (2 * total**2 * steepest)
    return delta


class TestDoge(OperatorContract):
    name = "doge"
    homogeneous = False  # lambda is over the length of a task vector
    tolerance = 5e-5

    share, steps = 1 / 6, STEPS

    def masks(self, theta: Whole, keep: float) -> list[dict[str, NDArray[np.bool_]]]:
        """The largest entries of each whole task vector."""
        found = []
        for at in range(1, len(theta["second.2.one"])):
            sizes = {name: np.abs((tensor[at] - tensor[0]).astype(np.float32)) for name, tensor in theta.items()}
            flat = np.sort(np.concatenate([size.ravel() for size in sizes.values()]))[::-1]
            least = flat[max(1, round(keep * flat.size)) - 1]
            found.append({name: size >= least for name, size in sizes.items()})
        return found

    def direct(self, theta: Whole, values: Values) -> Whole:
        masks = self.masks(theta, values.one("keep"))
        found = {}
        for name, tensor in theta.items():
            of = list(tensor[1:] - tensor[0])
            delta = descend(of, values.one("eta"), self.share, self.steps) if of[0].ndim == 2 else 0.0
            parts = zip(lambdas(of, values.one("eta")), masks, of, strict=True)
            found[name] = tensor[0] + sum(length * mask[name] * (one + delta) for length, mask, one in parts)
        return found


class TestDogeInOtherNumbers(TestDoge):
    options = (("subspace", 0.5), ("steps", 7))
    share, steps = 0.5, 7


def merged_offset(of: Sequence[Matrix], eta: float, steps: int, subspace: float = 1 / 3) -> Matrix:
    """Delta, from a merge that keeps everything."""
    options = (("steps", steps), ("subspace", subspace))
    whole, bare = merged("doge", of, (eta, 1.0), options), merged("doge", of, (eta, 1.0), (("steps", 0),))
    return (whole - bare) / sum(lambdas(of, eta))


@given(st.integers(0, 99), st.floats(0.01, 0.3))
@few
def test_without_steps_and_masks_it_is_task_arithmetic(seed: int, eta: float) -> None:
    of = taus(seed)
    expected = sum(length * one for length, one in zip(lambdas(of, eta), of, strict=True))
    np.testing.assert_allclose(merged("doge", of, (eta, 1.0), (("steps", 0),)), expected, atol=1e-6)


@given(st.integers(0, 99))
@few
def test_the_offset_has_nothing_in_the_shared_subspace(seed: int) -> None:
    of = taus(seed, (9, 12))
    delta = merged_offset(of, 0.07, 20)
    assert np.linalg.norm(projector(of, 1 / 3) @ delta) < 1e-4 * np.linalg.norm(delta)


@pytest.mark.parametrize("eta", [0.01, 0.07, 0.3])
def test_the_loss_never_rises(eta: float) -> None:
    of = taus(1, (9, 12))
    losses = [loss(of, lambdas(of, eta), merged_offset(of, eta, steps)) for steps in (0, 1, 2, 5, 20, 100, 400)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_without_a_subspace_the_loss_vanishes() -> None:
    of = taus(2, (5, 12))
    start, end = (loss(of, lambdas(of, 0.07), merged_offset(of, 0.07, steps, 0.0)) for steps in (0, 2000))
    assert end < 1e-6 * start


def test_entries_that_are_not_kept_are_the_base() -> None:
    of = taus(3, (9, 12), 1)
    found = merged("doge", of, (0.07, 0.25))
    kept = np.abs(of[0]) >= np.sort(np.abs(of[0]).ravel())[::-1][26]
    assert kept.sum() == 27
    assert ((found != 0.0) == kept).all()


def test_other_tensors_go_without_an_offset_as_they_are_told() -> None:
    of = taus(4)
    expected = sum(length * one for length, one in zip(lambdas(of, 0.07), of, strict=True))
    for others, result in (("linear", expected), ("mean", np.mean(of, axis=0)), ("base", 0.0)):
        found = merged("doge", of, (0.07, 1.0), (("leave", "*"), ("others", others)))
        np.testing.assert_allclose(found, result, atol=1e-6)


@pytest.mark.parametrize("options", [(("steps", -1),), (("subspace", 1.5),)])
def test_impossible_options_are_refused(options: Any) -> None:
    with pytest.raises(RecipeError, match="doge cannot"):
        operator("doge", options)
