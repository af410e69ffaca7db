"""What the fitnesses of transformers classifiers share: skeleton, class names, batches prepared once per split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import ConfigError
from evomerge.fitness import Splits
from evomerge_fitness.classification import SPLITS, Classification, SlopeLoss, Where, keep, transposed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reference:
    """What scoring needs to know of the checkpoint folder that candidates are built like."""

    folder: Path
    label2id: dict[str, int]
    vocabulary: int | None
    context: int | None


@dataclass(frozen=True)
class Prepared:
    """A split as the model is fed: keyword arguments batch by batch, and each item's place among the batches' rows."""

    batches: tuple[dict[str, Any], ...]
    places: NDArray[np.int64]


class TransformersClassification(Classification):
    """Scores models called with keyword tensors that return ``logits``."""

    head: ClassVar[Literal["image", "text"]]

    def __init__(self, splits: Splits, losses: bool, slope_loss: SlopeLoss) -> None:
        super().__init__(splits, losses, slope_loss)
        self._reference: Reference | None = None
        self._prepared: dict[Where, Prepared] = {}

    def skeleton(self, folder: Path) -> Any:
        """A model of the folder's architecture with arbitrary weights; its labels and preprocessing count from now."""
        from evomerge_fitness.skeletons import skeleton

        model = skeleton(folder, self.head)
        config = model.config
        vocabulary, context = (getattr(config, name, None) for name in ("vocab_size", "max_position_embeddings"))
        reference = Reference(folder, dict(config.label2id), vocabulary, context)
        if reference != self._reference:
            self._reference = reference
            self._labels = None
            self._judges.clear()
            self._prepared.clear()
        return model

    def check(self, folder: Path) -> None:
        """Build the model and prepare every split.

        Raises:
            EvomergeError: unreadable data or preprocessing, splits beyond the data, labels that the model lacks.
        """
        model = self.skeleton(folder)
        for split in SPLITS:
            if self.items(split):
                self._judge(split).fit(model.config.num_labels)
                self._prepare(split)

    @property
    def reference(self) -> Reference:
        """The folder that ``skeleton`` was last given.

        Raises:
            ConfigError: ``skeleton`` was not called yet.
        """
        if self._reference is None:
            raise ConfigError(
                "the fitness does not know its labels and preprocessing before skeleton(folder) is called"
            )
        return self._reference

    def logits(self, model: Any, where: Where) -> Tensor:
        """The model's logits on the split or part, classes x items."""
        rows = transposed([logits for logits, _ in self.batches(model, where)])
        return rows[:, self._prepare(where).places].contiguous()

    def batches(self, model: Any, where: Where) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """The model's logits batch by batch, with the places of their items."""
        prepared, start = self._prepare(where), 0
        items = np.argsort(prepared.places)
        for batch in prepared.batches:
            logits = model(**{name: x.to(model.device) for name, x in batch.items()}).logits
            yield logits, items[start : start + len(logits)]
            start += len(logits)

    def _prepare(self, where: Where) -> Prepared:
        import torch

        if where not in self._prepared:
            with torch.inference_mode(False):  # to be differentiated with, too
                return keep(self._prepared, where, self.prepare(self.indices(where)))
        return self._prepared[where]

    @abstractmethod
    def prepare(self, indices: NDArray[np.int64]) -> Prepared:
        """The items at these places of the data set, ready to be fed."""
