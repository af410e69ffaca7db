"""What all classification fitnesses share: accuracy and cross-entropy, item by item."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Score, Split
from evomerge.errors import ConfigError
from evomerge.fitness import Fitness, Splits
from evomerge.strategy import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge_fitness.judging import Judge

SPLITS: tuple[Split, ...] = ("search", "selection", "report")


Where = Split | tuple[Split, bytes]
"""A split, or some of its items: their places as bytes of int64, so that what is prepared for them can be kept."""

SlopeLoss = Literal["cross_entropy", "entropy"]
"""Of which loss slopes are taken: the labelled one, or the entropy of the predictions (AdaMerging's)."""

T = TypeVar("T")
_KEPT = 32  # parts of splits that things stay prepared for: rounds of a race come again for every candidate


def keep(kept: dict[Where, T], where: Where, value: T) -> T:
    """Keep what was prepared for ``where``; of parts only the newest."""
    parts = [key for key in kept if isinstance(key, tuple)]
    if isinstance(where, tuple) and len(parts) >= _KEPT:
        del kept[parts[0]]
    return kept.setdefault(where, value)


class Classification(Fitness):
    """Right or wrong and the loss, for each item of a labelled data set that the splits cut up."""

    parts = True
    slopes = True

    def __init__(self, splits: Splits, losses: bool, slope_loss: SlopeLoss = "cross_entropy") -> None:
        self.splits = splits
        self.losses = losses
        self._slope_loss = slope_loss
        self._judges: dict[Where, Judge] = {}
        self._labels: NDArray[np.int64] | None = None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Accuracy (higher is better) and, with losses, mean cross-entropy in nats (lower is better)."""
        accuracy = Objective("accuracy")
        return (accuracy, Objective("cross_entropy", "minimize")) if self.losses else (accuracy,)

    def items(self, split: Split) -> int:
        """How many items the split has."""
        return self.splits.size(split)

    def score(self, model: Any, split: Split) -> Score:
        """Accuracy and cross-entropy of the model on the split, with the row of every item.

        Raises:
            ConfigError: an empty split, or labels that the model has no class for.
        """
        return self._score(model, split)

    def score_part(self, model: Any, split: Split, places: NDArray[np.int64], replicate: int = 0) -> Score:
        """The same for some items. A replicate is the same again."""
        return self._score(model, _part(split, places))

    def loss_terms(self, model: Any, split: Split, places: NDArray[np.int64] | None = None) -> Iterator[Tensor]:
        """Each batch's part of the mean cross-entropy, or of the mean entropy of the predictions, in nats."""
        from torch import from_numpy
        from torch.nn.functional import cross_entropy, log_softmax

        where = split if places is None else _part(split, places)
        labels = self._known_labels()[self.indices(where)]
        for logits, items in self.batches(model, where):
            if self._slope_loss == "entropy":
                logs = log_softmax(logits.float(), dim=1)
                yield -(logs.exp() * logs).sum() / len(labels)
            else:
                targets = from_numpy(labels[items]).to(logits.device)
                yield cross_entropy(logits.float(), targets, reduction="sum") / len(labels)

    def strata(self, split: Split) -> NDArray[np.int64]:
        """The label of every item of the split."""
        return self._known_labels()[self.indices(split)]

    def _score(self, model: Any, where: Where) -> Score:
        import torch

        with torch.inference_mode():
            judge = self._judges.get(where) or self._judge(where)
            logits = self.logits(model, where)
            correct = judge.correct(logits)
            losses = judge.losses(logits) if self.losses else None
        accuracy = ("accuracy", int(np.count_nonzero(correct)) / len(correct))
        if losses is None:
            return Score((accuracy,), correct)
        return Score((accuracy, ("cross_entropy", float(losses.mean(dtype=np.float64)))), correct, losses)

    @property
    @abstractmethod
    def source(self) -> str:
        """What the data is called in messages."""

    @abstractmethod
    def labels(self) -> NDArray[np.int64]:
        """The class number of every item of the data set."""

    @abstractmethod
    def logits(self, model: Any, where: Where) -> Tensor:
        """The model's float32 logits on the split or part, classes x items, contiguous, on the CPU."""

    @abstractmethod
    def batches(self, model: Any, where: Where) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """The model's logits batch by batch, items x classes, with the places of their items in the split or part."""

    def indices(self, where: Where) -> NDArray[np.int64]:
        """Places in the data set of the split's (or part's) items, in order.

        Raises:
            ConfigError: the split has none, or reaches beyond the data.
        """
        if isinstance(where, tuple):
            split, places = where
            return self.indices(split)[np.frombuffer(places, dtype=np.int64)]
        split = where
        ranges = self.splits.ranges(split)
        if not ranges:
            raise ConfigError(f"splits.{split} is empty, so nothing can be scored on it; give it a range of items")
        self.splits.check_against(len(self._known_labels()), self.source)
        return np.concatenate([np.arange(start, stop) for start, stop in ranges])

    def _known_labels(self) -> NDArray[np.int64]:
        if self._labels is None:
            labels = self.labels()
            if labels.min() < 0:
                item = int(labels.argmin())
                raise ConfigError(f"{self.source} has label {labels[item]} at item {item}; class numbers start at 0")
            self._labels = labels
        return self._labels

    def _judge(self, where: Where) -> Judge:
        from evomerge_fitness.judging import Judge

        labels, split = self._known_labels()[self.indices(where)], where[0] if isinstance(where, tuple) else where
        return keep(self._judges, where, Judge(labels, f"{self.source}, splits.{split},"))


def _part(split: Split, places: NDArray[np.int64]) -> Where:
    return split, np.ascontiguousarray(places, dtype=np.int64).tobytes()


def transposed(batches: list[Tensor]) -> Tensor:
    """Row batches of logits, items x classes, as one float32 tensor, classes x items, on the CPU."""
    import torch

    return torch.cat([batch.detach().to("cpu", torch.float32) for batch in batches]).t().contiguous()
