"""From logits to what a classification fitness reports: who is right, and the loss of each item."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.errors import ConfigError


class Judge:
    """Compares logits, laid out classes x items and contiguous, with the true labels of one split."""

    def __init__(self, labels: NDArray[np.int64], what: str) -> None:
        self._labels = labels
        self._what = what
        self._classes = 0

    def correct(self, logits: Tensor) -> NDArray[np.bool_]:
        """Whether argmax (the first of equally large logits) names the label; a logit that is NaN is never right.

        Raises:
            ConfigError: a label that the model has no class for.
        """
        self.fit(len(logits))
        values = logits.numpy()
        largest: NDArray[np.bool_] = values == values.max(0)
        right: NDArray[np.bool_] = largest.ravel().take(self._places)
        if np.count_nonzero(largest) != len(right):  # ties are rare, so they are looked for only when there are any
            right &= ~(largest & self._earlier).any(0)
        return right

    def losses(self, logits: Tensor) -> NDArray[np.float32]:
        """Cross-entropy of each item in nats, float32.

        Raises:
            ConfigError: a label that the model has no class for.
        """
        self.fit(len(logits))
        losses: NDArray[np.float32] = logits.log_softmax(0).view(-1).index_select(0, self._index).neg_().numpy()
        return losses

    def fit(self, classes: int) -> None:
        """Prepare for this many classes, once: where each item's own logit lies, and which classes come before it."""
        if classes == self._classes:
            return
        labels = self._labels
        if labels.max() >= classes:
            raise ConfigError(
                f"{self._what} has label {labels.max()} at item {labels.argmax()} of the split, but the model's classes"
                f" are 0 to {classes - 1}; correct the labels or choose models with more classes"
            )
        self._places = labels * len(labels) + np.arange(len(labels))
        self._index = torch.from_numpy(self._places)
        self._earlier = np.arange(classes)[:, None] < labels
        self._classes = classes
