"""Strategies, fitnesses, operators and study templates by name: entry points, imported one at a time.

The built-ins are registered exactly as a stranger's would be. Listing reads only the metadata of installed
distributions; nothing is imported but what is named. ``package.module:Name`` needs no registration at all.
"""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from evomerge.errors import PluginError, nearest
from evomerge.fitness import Fitness
from evomerge.strategy import Strategy

T = TypeVar("T")
Group = Literal["strategies", "fitness", "operators", "templates"]

_ONE: dict[str, str] = {
    "strategies": "strategy",
    "fitness": "fitness",
    "operators": "operator",
    "templates": "template",
}
_EXTRAS = {
    "torch": "worker",
    "safetensors": "worker",
    "transformers": "worker",
    "sklearn": "worker",
    "huggingface_hub": "hub",
    "ray": "ray",
    "psycopg": "postgres",
    "httpx": "api",
    "starlette": "serve",
    "uvicorn": "serve",
    "optuna": "dashboard",
}


def names(group: Group) -> tuple[str, ...]:
    """The registered names of a group, sorted. Imports nothing."""
    return tuple(sorted(_offers(group)))


def load(group: Group, name: str) -> Any:
    """The object that ``name`` stands for: a registered name, or ``package.module:Name``.

    Raises:
        PluginError: nobody or more than one distribution offers the name, or it cannot be imported.
    """
    what = f"{_ONE[group]} {name!r}"
    if ":" in name:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise PluginError(f"{what} is not of the form package.module:Name; write it so")
        return _attribute(_module(module, what), attribute, what)
    offers = _offers(group)
    found = offers.get(name, [])
    if not found:
        raise PluginError(
            f"unknown {what}; {nearest(name, offers)}give a registered name ({', '.join(sorted(offers)) or 'none'}) "
            "or package.module:Name"
        )
    if len(found) > 1:
        both = " and ".join(sorted(f"{_distribution(one)} ({one.value})" for one in found))
        raise PluginError(f"{what} is offered by {both}; uninstall one, or write package.module:Name")
    return _attribute(_module(found[0].module, what), found[0].attr, what)


def strategy(name: str) -> type[Strategy[Any]]:
    """The strategy class of that name.

    Raises:
        PluginError: as `load`, or it is no `Strategy`.
    """
    return _subclass(load("strategies", name), Strategy, f"strategy {name!r}")  # type: ignore[type-abstract]


def fitness(name: str) -> type[Fitness]:
    """The fitness class of that name.

    Raises:
        PluginError: as `load`, or it is no `Fitness`.
    """
    return _subclass(load("fitness", name), Fitness, f"fitness {name!r}")  # type: ignore[type-abstract]


def distribution(group: Group, name: str) -> str | None:
    """The name of the distribution that offers ``name``; None for ``package.module:Name``."""
    found = _offers(group).get(name, [])
    return found[0].dist.name if found and found[0].dist is not None else None


def allow(folder: Path) -> None:
    """Let ``package.module:Name`` mean modules that lie in ``folder`` (the study file's) as well as installed ones."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def extra_for(error: ImportError) -> str:
    """What to install so that a failed import succeeds."""
    missing = (error.name or "").partition(".")[0]
    if missing in _EXTRAS:
        return f'{missing} is not installed: pip install "evomerge[{_EXTRAS[missing]}]"'
    return f"install what it needs: {error}"


def _offers(group: Group) -> dict[str, list[EntryPoint]]:
    offers: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in entry_points(group=f"evomerge.{group}"):
        offers[point.name].append(point)
    return dict(offers)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed distribution"


def _module(module: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise PluginError(
                f"{what}: there is no module {error.name!r}; install its distribution or put it beside the study file"
            ) from error
        raise PluginError(f"{what} cannot be imported; {extra_for(error)}") from error
    except ImportError as error:
        raise PluginError(f"{what} cannot be imported; {extra_for(error)}") from error


def _attribute(module: ModuleType, attribute: str, what: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        hint = nearest(attribute, public)
        raise PluginError(f"{what}: {module.__name__} has no {attribute!r}; {hint}name one that it has") from error


def _subclass(found: object, kind: type[T], what: str) -> type[T]:
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise PluginError(f"{what} is {found!r:.80}; name a class derived from {kind.__module__}.{kind.__name__}")
    return found
