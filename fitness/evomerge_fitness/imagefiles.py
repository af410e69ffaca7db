"""Reading labelled images from a ``.npz`` file or from one folder of image files per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import ConfigError
from evomerge_fitness.npz import class_numbers, read_npz

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True, eq=False)
class Images:
    """Images in order: an array of them, or their files.

    ``numbers`` are class numbers, or places in ``folders`` where the classes are folders.
    """

    numbers: NDArray[np.int64]
    array: NDArray[np.uint8] | None = None
    files: tuple[Path, ...] = ()
    folders: tuple[str, ...] | None = None

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """One image, height x width x 3, uint8.

        Raises:
            ConfigError: the file is no image.
        """
        from PIL import Image, UnidentifiedImageError

        if self.array is not None:
            pixels: NDArray[np.uint8] = self.array[index]
            return pixels
        try:
            with Image.open(self.files[index]) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise ConfigError(f"cannot read the image {self.files[index]}: {error}") from error

    def content(self, index: int) -> bytes:
        """The bytes that tell one image from another."""
        return self.files[index].read_bytes() if self.array is None else self.array[index].tobytes()


def read_images(path: Path) -> Images:
    """The images of a ``.npz`` file or a folder; files are only listed.

    Raises:
        ConfigError: nothing there, or not images with labels.
    """
    return _folder(path) if path.is_dir() else _array(path)


def _array(path: Path) -> Images:
    arrays = read_npz(path, ("images", "labels"))
    images, labels = arrays["images"], class_numbers(arrays["labels"], f"{path}: labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ConfigError(
            f"{path}: images are {images.dtype} of shape {images.shape}; they must be uint8, items x height x width,"
            " or x channels too"
        )
    if images.ndim == 3:
        images = images[..., None].repeat(3, axis=3)
    if len(images) != len(labels):
        raise ConfigError(f"{path} has {len(images)} images and {len(labels)} labels; they must be as many")
    return Images(labels, array=images)


def _folder(path: Path) -> Images:
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not folders:
        raise ConfigError(f"{path} has no folders; put the images of each class into a folder of its own")
    files, numbers = [], []
    for number, folder in enumerate(folders):
        found = sorted(each for each in folder.iterdir() if each.suffix.lower() in _SUFFIXES)
        if not found:
            raise ConfigError(f"{folder} has no image files ({', '.join(sorted(_SUFFIXES))})")
        files += found
        numbers += [number] * len(found)
    return Images(np.array(numbers), files=tuple(files), folders=tuple(each.name for each in folders))
