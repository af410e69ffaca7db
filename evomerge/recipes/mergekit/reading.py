"""A mergekit YAML as the recipe file that builds the same model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.config.yamlfile import Problems, parse
from evomerge.errors import ConfigError
from evomerge.recipes.mergekit import config
from evomerge.recipes.mergekit.config import Config
from evomerge.recipes.mergekit.methods import Merge, translated
from evomerge.recipes.mergekit.models import Models
from evomerge.recipes.mergekit.quantity import Unset
from evomerge.recipes.mergekit.sections import Sections

_SIGNS = ("merge_method", "modules", "slices", "models")


@dataclass(frozen=True)
class Imported:
    """A recipe file's text, and remarks about what it leaves out."""

    text: str
    notes: tuple[str, ...]


def is_mergekit(text: str) -> bool:
    """Whether a text is a mergekit YAML and no recipe file."""
    try:
        root = parse(text, Problems(""))
    except ConfigError:
        return False
    return isinstance(root.content, dict) and "pool" not in root.content and any(one in root.content for one in _SIGNS)


def imported(text: str, path: Path, into: Path) -> Imported:
    """The recipe file, as it is right in the folder ``into``.

    Raises:
        ConfigError: the text is no mergekit YAML, or says what cannot be said here; with lines.
        PoolError: the names of tensors are needed, but the models are not at hand.
    """
    problems = Problems(str(path))
    root = parse(text, problems)
    if not isinstance(root.content, dict):
        problems.add(root.line, f"the file is {root.shown}; a mergekit YAML has keys such as merge_method and models")
        problems.raise_any()
    found = config.read(root, problems)
    problems.raise_any()
    if found is None:
        raise ConfigError(f"{path} holds no merge")
    notes = [*found.notes]
    merges = list(_merges(found, problems, notes))
    problems.raise_any()
    models = Models(found, [one.base for one in merges], (Path(), path.parent), into)
    try:
        document = _document(found, merges, models)
    except Unset as unset:
        problems.add(found.slices[0].line, str(unset))
        problems.raise_any()
    head = f"# What the mergekit recipe {path.name} says.\n"
    body = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return Imported(head + body, tuple(dict.fromkeys(notes)))


def _merges(found: Config, problems: Problems, notes: list[str]) -> Iterator[Merge]:
    for part in found.slices:
        merge = translated(found, part, problems, notes)
        if merge is not None:
            yield merge


def _document(found: Config, merges: list[Merge], models: Models) -> dict[str, Any]:
    """The recipe file as plain values."""
    recipes = dict(Sections(found, merges, models).all())
    return {
        "pool": models.pool(),
        "merge": recipes.pop("merge"),
        **({"recipes": recipes} if recipes else {}),
        **({"dtype": found.dtype} if found.dtype else {}),
    }
