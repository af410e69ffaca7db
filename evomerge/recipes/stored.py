"""A ``recipe.json`` that an export wrote: the exact recipe with its ancestry, to be built again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import codec
from evomerge.candidate import Recipe
from evomerge.config.values import value
from evomerge.config.yamlfile import Problems, parse
from evomerge.errors import CodecError, ConfigError, ResumeError
from evomerge.merge.pool import ModelPool
from evomerge.recipes.file import text_of
from evomerge.settings import PoolSettings


@dataclass(frozen=True)
class StoredRecipe:
    """An export's recipe.

    Attributes:
        path: of the file.
        text: all of it.
        recipe: what is built.
        ancestors: its whole ancestry, oldest first.
        digests: content digest of each source that it was built from.
        order: the merged tensors in the order of the parameter vector.
        groups: size of each parameter group.
    """

    path: Path
    text: str
    recipe: Recipe
    ancestors: tuple[Recipe, ...]
    digests: Mapping[str, str]
    order: tuple[str, ...]
    groups: Mapping[str, int]

    def check(self, pool: ModelPool) -> None:
        """Refuse a pool that the recipe was not built from. Reads everything once.

        Raises:
            ResumeError: other models, groups or order of tensors.
        """
        if self.order != tuple(slot.name for slot in pool.layout.slots) or self.groups != {
            group.name: group.size for group in pool.groups
        }:
            raise ResumeError(
                f"{self.path}: the pool has other tensors, groups or another order than the recipe was made for; name "
                "the study or recipe file that it comes from with --pool"
            )
        now = pool.digests()
        changed = [name for name, digest in self.digests.items() if now.get(name) != digest]
        if changed:
            raise ResumeError(
                f"{self.path}: pool content of {', '.join(changed)} is not what the recipe was made with; put the "
                "original files back"
            )


def read(path: Path) -> StoredRecipe:
    """Read what an export wrote.

    Raises:
        ConfigError: it is no such file, or it was changed.
    """
    text = text_of(path)
    try:
        table = json.loads(text)
        found = StoredRecipe(
            path,
            text,
            _recipe(table["recipe"]),
            tuple(_recipe(one) for one in table["ancestors"]),
            dict(table["source_digests"]),
            tuple(table["order"]),
            dict(table["groups"]),
        )
        digest = table["digest"]
    except (ValueError, KeyError, TypeError, RecursionError, CodecError) as error:
        raise ConfigError(
            f"{path} is no recipe.json of an export ({type(error).__name__}: {error}); name one, or a YAML recipe file"
        ) from error
    if found.recipe.digest != digest:
        raise ConfigError(
            f"{path} was changed: its recipe has the digest {found.recipe.digest}, not {digest}; restore it"
        )
    return found


def _recipe(table: Any) -> Recipe:
    return codec.load(Recipe, json.dumps(table))


def pool_of(path: Path) -> PoolSettings:
    """The ``pool`` section of a study or recipe file.

    Raises:
        ConfigError: the file cannot be read, or its pool holds errors.
    """
    problems = Problems(str(path))
    root = parse(text_of(path), problems)
    node = root.child("pool")
    if node is None:
        problems.add(root.line, "the key 'pool' is missing; name a study file or a recipe file")
        problems.raise_any()
    found: Any = node and value(PoolSettings, node, "pool", problems)
    problems.raise_any()
    settings: PoolSettings = found
    return settings
