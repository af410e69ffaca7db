"""From what people write as labels to the class numbers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import ConfigError


def class_of(label: object, names: Mapping[str, int], where: str) -> int:
    """The class number of a label: a whole number (also as text), or a name that the model's ``label2id`` knows.

    Raises:
        ConfigError: naming ``where`` and the labels that are known.
    """
    if isinstance(label, str) and label in names:
        return names[label]
    if isinstance(label, int) and not isinstance(label, bool):
        return label
    if isinstance(label, str) and label.strip().isascii() and label.strip().isdigit():
        return int(label)
    known = ", ".join(sorted(names, key=names.__getitem__)[:10]) or "none"
    raise ConfigError(f"{where}: label {label!r} is neither a class number nor one of the model's labels ({known})")


def classes_of_folders(folders: Sequence[str], names: Mapping[str, int], where: str) -> NDArray[np.int64]:
    """The class number of each folder: by ``label2id`` or as a number; in sorted order where the model names none.

    Raises:
        ConfigError: a folder that the model has no class for.
    """
    named = any(name != f"LABEL_{number}" for name, number in names.items())
    if named or not names.keys().isdisjoint(folders) or all(folder.isdigit() for folder in folders):
        return np.array([class_of(folder, names, f"{where}/{folder}") for folder in folders], dtype=np.int64)
    return np.arange(len(folders))
