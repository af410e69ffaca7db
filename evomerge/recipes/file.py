"""A recipe file: YAML that says one merge, read into something that a pool turns into a `Recipe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import plugins
from evomerge.config.values import unknown, value
from evomerge.config.yamlfile import Node, Problems, parse
from evomerge.errors import ConfigError
from evomerge.merge.export import DTYPES
from evomerge.merge.pool import BASE
from evomerge.recipes import spec
from evomerge.recipes.spec import Spec
from evomerge.settings import PoolSettings

HUB = "hf:"
"""How a reference to a model on the Hugging Face hub begins."""

_KEYS = ("pool", "merge", "recipes", "dtype")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file that was read.

    Attributes:
        path: where it is, or would be: paths of models are relative to its folder.
        name: what errors call it.
        text: all of it.
        pool: the models.
        merge: what is built in the end.
        recipes: what is built on the way, each after all that it is made of.
        dtype: of the merged tensors; ``None``: as in the pool.
        notes: remarks about what it was made from.
    """

    path: Path
    name: str
    text: str
    pool: PoolSettings
    merge: Spec
    recipes: Mapping[str, Spec]
    dtype: str | None
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self.path.absolute().parent


def text_of(path: Path) -> str:
    """The text of a file that the user named.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe file {path}; docs/merging.md says how to write one") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name the recipe file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); name a YAML recipe file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def read(path: Path, text: str | None = None, name: str | None = None) -> RecipeFile:
    """Read and validate a recipe file, or ``text`` as if it stood there; ``name`` is its name in errors.

    Opens no model.

    Raises:
        ConfigError: it cannot be read, or holds errors; all of them are listed.
    """
    text = text_of(path) if text is None else text
    plugins.allow(path.absolute().parent)
    name = name or str(path)
    problems = Problems(name)
    root = parse(text, problems)
    if not isinstance(root.content, dict):
        problems.add(root.line, f"the file is {root.shown}; a recipe file has the keys {', '.join(_KEYS)}")
        problems.raise_any()
    for key in root.content.keys() - set(_KEYS):
        unknown(problems, root.lines[key], key, _KEYS)
    pool, merges = _pool(root, problems), _merges(root, problems)
    dtype = _dtype(root.child("dtype"), problems)
    problems.raise_any()
    found = _specs(pool, merges, problems)
    problems.raise_any()
    ordered = {name: found[name] for name in _ordered(found, problems)}
    problems.raise_any()
    return RecipeFile(path, name, text, pool, ordered.pop("merge"), ordered, dtype)


def _pool(root: Node, problems: Problems) -> PoolSettings:
    node = root.child("pool")
    found: Any = None
    if node is None:
        problems.add(root.line, "the key 'pool' is missing; give 'pool: {members: {NAME: FOLDER, ...}}'")
    else:
        found = value(PoolSettings, node, "pool", problems)
    return found or PoolSettings({})


def _merges(root: Node, problems: Problems) -> dict[str, Node]:
    """The nodes of ``merge`` and of all ``recipes``, by name."""
    merge, recipes = root.child("merge"), root.child("recipes")
    if merge is None:
        problems.add(root.line, "the key 'merge' is missing; give 'merge: {operator: NAME, ...}'")
    if recipes is not None and not isinstance(recipes.content, dict):
        problems.add(recipes.line, f"recipes is {recipes.shown}; give a name for each, and its merge")
        recipes = None
    if recipes is not None and "merge" in recipes.content:
        problems.add(recipes.lines["merge"], "a recipe cannot be called 'merge', which is the whole; give another name")
    return {**(recipes.content if recipes else {}), **({"merge": merge} if merge else {})}


def _dtype(node: Node | None, problems: Problems) -> str | None:
    if node is None or node.content is None:
        return None
    if node.content not in tuple(DTYPES):
        problems.add(node.line, f"dtype is {node.shown}; give one of {', '.join(DTYPES)}")
    return str(node.content)


def _specs(pool: PoolSettings, merges: Mapping[str, Node], problems: Problems) -> dict[str, Spec]:
    models = [*pool.members, *((BASE,) if pool.base is not None and BASE not in pool.members else ())]
    for name, node in merges.items():
        if name in models:
            problems.add(node.line, f"recipes.{name}: a model of the pool has that name; give another one")
    found = {}
    for name, node in merges.items():
        others = [one for one in merges if one not in (name, "merge")]
        path = name if name == "merge" else f"recipes.{name}"
        one = spec.read(path, node, (*models, *others), problems)
        if one is not None:
            found[name] = one
    return found


def _ordered(specs: Mapping[str, Spec], problems: Problems) -> Iterator[str]:
    """The names, each after those that it is made of."""
    done: set[str] = set()
    open_ends: list[str] = []

    def visit(name: str) -> Iterator[str]:
        one = specs[name]
        if name in open_ends:
            circle = " -> ".join([*open_ends[open_ends.index(name) :], name])
            problems.add(one.line, f"{one.path} is made of itself ({circle}); break the circle")
        elif name not in done:
            open_ends.append(name)
            for source in (*(one.sources or ()), *((one.base,) if one.base else ())):
                if source in specs:
                    yield from visit(source)
            open_ends.pop()
            done.add(name)
            yield name

    for name in specs:
        yield from visit(name)
