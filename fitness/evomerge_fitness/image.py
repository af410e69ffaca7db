"""Classification of images by a transformers image classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from evomerge.errors import ConfigError
from evomerge.fitness import Splits
from evomerge_fitness.classification import SlopeLoss
from evomerge_fitness.hf import Prepared, TransformersClassification
from evomerge_fitness.imagefiles import Images, read_images
from evomerge_fitness.labels import classes_of_folders


@dataclass(frozen=True)
class ImageSettings:
    """Which images, and how they are fed.

    ``data``, named from the study file's folder on, is a folder with one folder of image files per class (named like
    the model's labels or numbered; items in sorted order), or a ``.npz`` file with ``images`` (items x height x width,
    or x channels too, uint8) and ``labels`` (class numbers). Pixels are made ready as the reference folder's
    ``preprocessor_config.json`` says; without one they are divided by 255. ``batch`` is the number of images per
    forward pass. Without ``losses`` only right and wrong are reported. A strategy that follows
    slopes of a loss gets those of ``slope_loss``: the labelled cross-entropy, or the entropy of the predictions, which
    needs no labels.
    """

    data: str
    batch: Annotated[int, Gt(0)] = 32
    losses: bool = True
    slope_loss: SlopeLoss = "cross_entropy"


class ImageClassification(TransformersClassification):
    """Accuracy and cross-entropy of an image classifier; every image is made ready once and kept as float32."""

    Settings = ImageSettings
    head = "image"

    def __init__(self, settings: ImageSettings, splits: Splits) -> None:
        super().__init__(splits, settings.losses, settings.slope_loss)
        self.settings = settings

    @property
    def source(self) -> str:
        """The data's path."""
        return self.settings.data

    def labels(self) -> NDArray[np.int64]:
        """The class number of every image."""
        images = self._images
        if images.folders is None:
            return images.numbers
        return classes_of_folders(images.folders, self.reference.label2id, self.source)[images.numbers]

    def fingerprint(self) -> Mapping[str, str]:
        """Digest of the images' bytes and labels."""
        digest = hashlib.blake2b(repr(self._images.folders).encode(), digest_size=16)
        digest.update(self._images.numbers.tobytes())
        for index in range(len(self._images.numbers)):
            digest.update(self._images.content(index))
        return {self.settings.data: digest.hexdigest()}

    def prepare(self, indices: NDArray[np.int64]) -> Prepared:
        """The pixels of these images, batch by batch."""
        size = self.settings.batch
        processor = self._processor()
        chunks = [indices[at : at + size] for at in range(0, len(indices), size)]
        batches = tuple({"pixel_values": self._pixels(processor, chunk)} for chunk in chunks)
        return Prepared(batches, np.arange(len(indices)))

    @cached_property
    def _images(self) -> Images:
        return read_images(self.root / self.settings.data)

    def _processor(self) -> Any:
        """The reference folder's image processor, on Pillow wherever it runs; ``None`` without its file."""
        import transformers

        folder = self.reference.folder
        if not (folder / "preprocessor_config.json").exists():
            return None
        backend = {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
        try:
            auto: Any = transformers.AutoImageProcessor
            return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **backend)
        except (ValueError, OSError, KeyError) as error:
            raise ConfigError(f"cannot use {folder / 'preprocessor_config.json'}: {error}") from error

    def _pixels(self, processor: Any, indices: Sequence[int] | NDArray[np.int64]) -> Any:
        import torch

        images = [self._images.pixels(int(index)) for index in indices]
        if processor is not None:
            return processor(images, return_tensors="pt")["pixel_values"]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ConfigError(
                f"{self.source} has images of several sizes, such as {sorted(shapes)[:2]}, and {self.reference.folder}"
                " has no preprocessor_config.json that says how to resize them"
            )
        return torch.from_numpy(
            np.stack(images).astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
        ).contiguous()
