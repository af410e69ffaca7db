"""Classification of arrays: scikit-learn's digits, or any ``.npz`` file with ``x`` and ``y``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.errors import ConfigError
from evomerge.fitness import Splits
from evomerge_fitness.classification import SPLITS, Classification, SlopeLoss, Where, keep, transposed
from evomerge_fitness.npz import class_numbers, read_npz

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge_fitness.mlp import Logits


@dataclass(frozen=True)
class ArraySettings:
    """Which arrays, and how they are fed.

    ``data`` is ``digits`` (scikit-learn's 1,797 images of 8x8 raw pixels 0 to 16, in their own order) or a ``.npz``
    file, named from the study file's folder on, with ``x`` (items first, numbers) and ``y`` (class numbers from 0).
    ``scale`` multiplies ``x``. ``batch`` is the number of items per forward pass (0: chosen). Without ``losses`` only
    right and wrong are reported. A strategy that follows slopes of a loss gets those of ``slope_loss``: the labelled
    cross-entropy, or the entropy of the predictions, which needs no labels.
    """

    data: str = "digits"
    scale: Annotated[float, Gt(0)] = 1.0
    batch: Annotated[int, Ge(0)] = 0
    losses: bool = True
    slope_loss: SlopeLoss = "cross_entropy"


class ArrayClassification(Classification):
    """Accuracy and cross-entropy of a classifier called with float32 arrays."""

    Settings = ArraySettings

    def __init__(self, settings: ArraySettings, splits: Splits) -> None:
        super().__init__(splits, settings.losses, settings.slope_loss)
        self.settings = settings
        self._inputs: dict[Where, Tensor] = {}
        self._fused: dict[Where, Logits] = {}

    @property
    def source(self) -> str:
        """The data's name or path."""
        return self.settings.data

    def labels(self) -> NDArray[np.int64]:
        """The class number of every item of the data set."""
        return self._data[1]

    def skeleton(self, folder: Path) -> Any:
        """A model of the folder's architecture with arbitrary weights."""
        from evomerge_fitness.skeletons import skeleton

        return skeleton(folder)

    def check(self, folder: Path) -> None:
        """Read the data, build the model and score it once on each split.

        Raises:
            EvomergeError: unreadable data, splits beyond it, labels or features that the model has no place for.
        """
        model = self.skeleton(folder)
        for parameter in model.parameters():
            parameter.zero_()
        for split in SPLITS:
            if self.items(split):
                self.score(model, split)

    def fingerprint(self) -> Mapping[str, str]:
        """Digest of the arrays as they are fed."""
        x, y = self._data
        digest = hashlib.blake2b(digest_size=16)
        for array in (x, y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        return {self.settings.data: digest.hexdigest()}

    def logits(self, model: Any, where: Where) -> Tensor:
        """The model's logits on the split or part, classes x items."""
        from evomerge_fitness.mlp import MLP

        if isinstance(model, MLP):
            fused = self._fused.get(where)
            if fused is None or fused.config != model.config:
                fused = self._fuse(model, where)
            return fused(model)
        return transposed([logits for logits, _ in self.batches(model, where)])

    def batches(self, model: Any, where: Where) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """The model's logits batch by batch, with the places of their items."""
        from evomerge_fitness.mlp import MLP

        x = self._x(where)
        device = next((parameter.device for parameter in model.parameters()), x.device)
        step = self.settings.batch or 256
        for start in range(0, len(x), step):
            rows = x[start : start + step].to(device)
            output = model(rows.flatten(1) if isinstance(model, MLP) else rows)
            yield getattr(output, "logits", output), np.arange(start, start + len(rows))

    def _fuse(self, model: Any, where: Where) -> Logits:
        from evomerge_fitness.mlp import Logits

        x, wanted = self._x(where).flatten(1), model.config.layer_sizes[0]
        if x.shape[1] != wanted:
            raise ConfigError(f"{self.source} has {x.shape[1]} features per item, but the model takes {wanted}")
        self._fused.pop(where, None)
        return keep(self._fused, where, Logits(model.config, x, self.settings.batch))

    def _x(self, where: Where) -> Tensor:
        import torch

        if where not in self._inputs:
            with torch.inference_mode(False):  # to be differentiated with, too
                return keep(self._inputs, where, torch.from_numpy(self._data[0][self.indices(where)]))
        return self._inputs[where]

    @cached_property
    def _data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        x, y = _digits() if self.settings.data == "digits" else _file(self.root / self.settings.data)
        return np.ascontiguousarray(x * np.float32(self.settings.scale), dtype=np.float32), y


def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def _file(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    arrays = read_npz(path, ("x", "y"))
    x, y = arrays["x"], class_numbers(arrays["y"], f"{path}: y")
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise ConfigError(f"{path}: x is {x.dtype} of shape {x.shape}; it must be numbers, items first, then features")
    if len(x) != len(y):
        raise ConfigError(f"{path}: x has {len(x)} items and y has {len(y)}; they must be as many")
    x = x.astype(np.float32)
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        raise ConfigError(f"{path}: x has values that are not finite, first in item {int(finite.argmin())}")
    return x, y
