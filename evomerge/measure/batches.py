"""Batches of examples, whatever form they come in, and running a model on them without changing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.errors import MeasureError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Batches = Iterable[Any]


@dataclass(frozen=True)
class Batch:
    """One batch as the model takes it: ``words`` are keyword arguments, or else ``alone`` is the only argument."""

    words: Mapping[str, Any]
    alone: Tensor | None
    targets: Tensor | None

    @property
    def mask(self) -> Tensor | None:
        """1 for tokens and 0 for padding, (examples, positions), where the batch says so."""
        return self.words.get("attention_mask")

    def __len__(self) -> int:
        import torch

        first = self.alone if self.alone is not None else next(filter(torch.is_tensor, self.words.values()), None)
        if first is None:
            raise MeasureError("a batch has no tensor to tell how many examples it has; give the model's inputs")
        return len(first)

    def examples(self) -> Iterator[Batch]:
        """Its examples, each as a batch of one."""
        for at in range(len(self)):
            here = slice(at, at + 1)
            yield Batch(
                {name: _cut(value, here) for name, value in self.words.items()},
                None if self.alone is None else self.alone[here],
                None if self.targets is None else self.targets[here],
            )

    def output(self, model: Module) -> Any:
        """What the model makes of it."""
        return model(self.alone) if self.alone is not None else model(**self.words)

    def logits(self, model: Module) -> Tensor:
        """The logits among what the model makes of it.

        Raises:
            MeasureError: something else than logits.
        """
        import torch

        found = self.output(model)
        found = getattr(found, "logits", found)
        if not torch.is_tensor(found) or found.ndim < 2:
            raise MeasureError(
                f"{type(model).__name__} gives {type(found).__name__} instead of logits with an axis of classes; wrap "
                "the model so that it does"
            )
        return found


def batches(given: Batches, model: Module) -> Iterator[Batch]:
    """The batches, where the model is.

    Raises:
        MeasureError: a batch of no known form.
    """
    import torch

    device = next(model.parameters()).device
    for batch in given:
        if torch.is_tensor(batch):
            yield Batch({}, batch.to(device), None)
        elif isinstance(batch, Mapping):
            words = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
            targets = words.pop("labels", None)
            yield Batch(words, None, targets)
        elif isinstance(batch, tuple | list) and len(batch) == 2 and all(map(torch.is_tensor, batch)):
            yield Batch({}, batch[0].to(device), batch[1].to(device))
        else:
            raise MeasureError(
                f"a batch is a {type(batch).__name__}; give a mapping of keyword arguments, a pair of inputs and "
                "targets, or inputs alone"
            )


@contextmanager
def at_rest(model: Module) -> Iterator[None]:
    """The model as it predicts, without dropout; afterwards as it was."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was in training:
            module.training = was


def _cut(value: Any, here: slice) -> Any:
    import torch

    return value[here] if torch.is_tensor(value) else value
