"""Reading labelled arrays from a file, refusing whatever is not that."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import ConfigError


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The named arrays of a ``.npz`` file; nothing pickled is ever loaded.

    Raises:
        ConfigError: no such file, not a ``.npz``, or an array is missing.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ConfigError(f"{path} holds a single array; save {' and '.join(names)} with numpy.savez")
        with file:
            missing = [name for name in names if name not in file.files]
            if missing:
                have = ", ".join(file.files) or "nothing"
                wanted = " and ".join(names)
                raise ConfigError(f"{path} has no array {missing[0]!r}; it must hold {wanted}, and holds {have}")
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise ConfigError(f"there is no data file {path}; correct the path in the fitness settings") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot read arrays from {path}: {error}") from error


def class_numbers(values: NDArray[Any], what: str) -> NDArray[np.int64]:
    """One class number per item.

    Raises:
        ConfigError: not whole numbers in one dimension, or none at all.
    """
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise ConfigError(f"{what} is {values.dtype} of shape {values.shape}; it must be one whole number per item")
    if not len(values):
        raise ConfigError(f"{what} is empty; there is nothing to score")
    return values.astype(np.int64)
