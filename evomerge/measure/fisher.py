"""The diagonal of a model's Fisher information: how much its predictions depend on each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import MeasureError
from evomerge.measure.batches import Batch, Batches, at_rest, batches
from evomerge.merge.naming import checkpoint_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

Labels = Literal["sampled", "exact", "given"]

_IGNORED = -100
"""The target of positions that do not count, as in torch."""


def fisher(
    model: Module, examples: Batches, labels: Labels = "sampled", *, causal: bool = False, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """``F[p] = mean_x E_y (d log p(y | x) / d theta_p)^2``, by every name that a checkpoint may have for a tensor.

    One backward pass per example and label; squares are summed, sums never squared. An example's ``y`` is one class, or
    a class per position, all of whose log-probabilities are added; padding (``attention_mask`` 0) does not count.

    Args:
        model: any module that gives logits. It is left as it was; it runs without dropout.
        examples: batches; a few hundred to a few thousand examples are usual.
        labels: ``sampled`` draws y from the model's own predictions, an unbiased estimate for any model; ``exact`` sums
            over all classes, for models with one prediction per example; ``given`` takes the targets, which is the
            *empirical* Fisher information and another quantity.
        causal: the target of a position is that of the next one. Without targets they are ``input_ids``.
        seed: of the draws.

    Returns:
        Float32 arrays in the shapes of the tensors. Tied names share one array; buffers, which no gradient reaches,
        have zeros.

    Raises:
        MeasureError: no examples, targets that are missing or do not fit, or gradients that are not finite.
    """
    import torch

    if labels not in ("sampled", "exact", "given"):
        raise MeasureError(f"there are no {labels!r} labels; choose sampled, exact or given")
    named = [(tensor, names) for tensor, names in checkpoint_names(model) if tensor.is_floating_point()]
    sums = [torch.zeros_like(tensor, dtype=torch.float32) for tensor, _ in named]
    at = [place for place, (tensor, _) in enumerate(named) if isinstance(tensor, torch.nn.Parameter)]
    parameters = [named[place][0] for place in at]
    scorer = _Scorer(labels, causal, torch.Generator(parameters[0].device).manual_seed(seed))
    count = 0
    with at_rest(model), _differentiable(parameters), torch.enable_grad():
        for batch in batches(examples, model):
            for example in batch.examples():
                for weight, score, last in scorer.scores(example, example.logits(model)):
                    found = torch.autograd.grad(score, parameters, retain_graph=not last, allow_unused=True)
                    for place, gradient in zip(at, found, strict=True):
                        if gradient is not None:
                            sums[place].addcmul_(gradient.float(), gradient.float(), value=weight)
                count += 1
    if not count:
        raise MeasureError("there are no examples to measure the Fisher information with; give at least one batch")
    return _by_name(named, [total / count for total in sums])


class _Scorer:
    """Which log-probabilities of an example are differentiated, and how much the square of each gradient counts."""

    def __init__(self, labels: Labels, causal: bool, generator: torch.Generator) -> None:
        self._labels = labels
        self._causal = causal
        self._generator = generator

    def scores(self, example: Batch, logits: Tensor) -> Iterator[tuple[float, Tensor, bool]]:
        """Weight, log-probability, and whether it is the last, of one example's labels."""
        if self._labels == "given":
            logits, targets = self._given(example, logits)
            kept = targets != _IGNORED
            rows, chosen = _log_softmax(logits[kept]), targets[kept]
        else:
            rows = _log_softmax(_unpadded(example, logits.flatten(0, -2)))
            if self._labels == "exact":
                yield from _every_class(rows)
                return
            chosen = self._draw(rows.detach().exp())
        if len(rows):
            yield 1.0, rows.gather(-1, chosen[:, None]).sum(), True

    def _draw(self, shares: Tensor) -> Tensor:
        """One class per row."""
        import torch

        if not len(shares):
            return shares.new_zeros(0, dtype=torch.int64)
        return torch.multinomial(shares, 1, generator=self._generator)[:, 0]

    def _given(self, example: Batch, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes) and targets (n,)."""
        import torch

        targets, mask = example.targets, example.mask
        if targets is None and self._causal:
            targets = example.words.get("input_ids")
        if targets is None:
            raise MeasureError("a batch has no targets; give a pair, or a mapping with labels, or use sampled labels")
        if mask is not None and mask.shape == targets.shape:
            targets = torch.where(mask.bool(), targets, _IGNORED)
        if self._causal:
            logits, targets = logits[:, :-1], targets[:, 1:]
        if targets.shape != logits.shape[:-1] or targets.is_floating_point():
            raise MeasureError(
                f"targets of {targets.dtype} {list(targets.shape)} do not fit logits of {list(logits.shape)}; give a "
                "class number per prediction"
            )
        beyond = targets[(targets >= logits.shape[-1]) | ((targets < 0) & (targets != _IGNORED))]
        if len(beyond):
            raise MeasureError(f"target {int(beyond[0])} is none of the {logits.shape[-1]} classes; correct the data")
        return logits.flatten(0, -2), targets.flatten().long()


def _unpadded(example: Batch, rows: Tensor) -> Tensor:
    """The rows of an example's logits that are no padding's."""
    mask = example.mask
    return rows if mask is None or mask.numel() != len(rows) else rows[mask.flatten().bool()]


def _log_softmax(logits: Tensor) -> Tensor:
    found = logits.float().log_softmax(-1)
    if found.isnan().any():
        raise MeasureError("the model's predictions are not finite; check the model and the examples")
    return found


def _every_class(rows: Tensor) -> Iterator[tuple[float, Tensor, bool]]:
    """The classes that are possible at all, with their probabilities."""
    if len(rows) != 1:
        raise MeasureError(
            f"an example has {len(rows)} predictions, and all their combinations are too many; use sampled labels"
        )
    weights = [(y, weight) for y, weight in enumerate(rows[0].detach().exp().tolist()) if weight > 0.0]
    for y, weight in weights:
        yield weight, rows[0, y], y == weights[-1][0]


@contextmanager
def _differentiable(parameters: list[Tensor]) -> Iterator[None]:
    """Gradients reach all parameters; afterwards those that they reached."""
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, was in zip(parameters, before, strict=True):
            parameter.requires_grad_(was)


def _by_name(named: list[tuple[Tensor, list[str]]], means: list[Tensor]) -> dict[str, NDArray[np.float32]]:
    found = {}
    for (_, names), mean in zip(named, means, strict=True):
        array: NDArray[np.float32] = mean.cpu().numpy()
        if not math.isfinite(float(array.sum(dtype=np.float64))):
            raise MeasureError(f"the gradients of {names[0]!r} are not finite; check the model and the examples")
        found.update(dict.fromkeys(names, array))
    return found
