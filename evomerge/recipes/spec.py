"""One merge of a recipe file, read as far as that goes without the models: operator, sources, options, parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from evomerge.config.values import unknown, value
from evomerge.config.yamlfile import Node, Problems
from evomerge.errors import PluginError, RecipeError
from evomerge.merge.operators.port import Operator, operator
from evomerge.recipes.notation import Reader
from evomerge.recipes.parameters import Setting

Options = tuple[tuple[str, str | int | float | bool], ...]

_KEYS = ("operator", "sources", "base", "options", "parameters")


@dataclass(frozen=True)
class Spec:
    """A merge as the file says it.

    Attributes:
        path: ``merge`` or ``recipes.NAME``.
        line: where it begins.
        lines: the line of each of its keys.
        operator: the operator's name.
        options: all options of the operator, those that the file leaves out with their defaults.
        sources: names of what is merged, without the base; ``None``: all members.
        base: name of the base; ``None``: the pool's.
        settings: the value of each of the operator's parameters.
    """

    path: str
    line: int
    lines: Mapping[str, int]
    operator: str
    options: Options
    sources: tuple[str, ...] | None
    base: str | None
    settings: Mapping[str, Setting]

    @property
    def kind(self) -> Operator:
        """The operator itself."""
        return operator(self.operator, self.options)

    def line_of(self, key: str) -> int:
        """The line of one of its keys, or where it begins."""
        return self.lines.get(key, self.line)


def read(path: str, node: Node, names: Collection[str], problems: Problems) -> Spec | None:
    """The merge that ``node`` says, or ``None`` with its problems added. ``names`` are members and other recipes."""
    if not isinstance(node.content, dict):
        problems.add(node.line, f"{path} is {node.shown}; give keys and values below it: {', '.join(_KEYS)}")
        return None
    for key in node.content.keys() - set(_KEYS):
        unknown(problems, node.lines[key], key, _KEYS, path)
    named = node.child("operator")
    if named is None or not isinstance(named.content, str):
        problems.add((named or node).line, f"{path} needs an operator; give a name such as linear, slerp or ties")
        return None
    kind, options = _operator(path, named, node.child("options"), problems)
    sources, base = _sources(path, node.child("sources"), names, problems), _base(path, node, kind, names, problems)
    if kind is None:
        return None
    models = names if sources is None else (*sources, *((base,) if base else ()))
    settings = _settings(path, node, kind, models, problems)
    return Spec(path, node.line, node.lines, named.content, options, sources, base, settings)


def _operator(path: str, named: Node, options: Node | None, problems: Problems) -> tuple[Operator | None, Options]:
    try:
        plain = operator(named.content)
    except PluginError as error:
        problems.add(named.line, f"{path}: {error}")
        return None, ()
    except RecipeError:  # it cannot be had without options
        plain = None
    found = _options(path, type(plain), options or Node({}, named.line), problems) if plain else ()
    try:
        return operator(named.content, found), found
    except RecipeError as error:
        problems.add((options or named).line, f"{path}.options: {error}")
        return None, ()


def _options(path: str, kind: type[Any], node: Node, problems: Problems) -> Options:
    """Every field of the operator, so that a default that changes one day changes no recipe."""
    hints = get_type_hints(kind, include_extras=True)
    known = {one.name: one.default for one in fields(kind)}
    if node.content is not None and not isinstance(node.content, dict):
        problems.add(node.line, f"{path}.options is {node.shown}; give {', '.join(known) or 'nothing: it has none'}")
        return ()
    given = node.content or {}
    for key in given.keys() - known.keys():
        unknown(problems, node.lines[key], key, known, f"{path}.options")
    found = {
        key: value(hints[key], given[key], f"{path}.options.{key}", problems) if key in given else default
        for key, default in known.items()
    }
    return tuple(sorted((key, one) for key, one in found.items() if isinstance(one, str | int | float | bool)))


def _sources(path: str, node: Node | None, names: Collection[str], problems: Problems) -> tuple[str, ...] | None:
    if node is None:
        return None
    if (
        not isinstance(node.content, list)
        or not node.content
        or not all(isinstance(one.content, str) for one in node.content)
    ):
        problems.add(node.line, f"{path}.sources is {node.shown}; give a list of names: {', '.join(names)}")
        return None
    found: dict[str, None] = {}
    for one in node.content:
        if one.content not in names:
            _no_source(problems, one, names, f"{path}.sources")
        elif one.content in found:
            problems.add(
                one.line, f"{path}.sources has {one.content!r} twice; give it once, with the sum of its weights"
            )
        found[one.content] = None
    return tuple(found)


def _base(path: str, node: Node, kind: Operator | None, names: Collection[str], problems: Problems) -> str | None:
    base = node.child("base")
    if base is None:
        return None
    if not isinstance(base.content, str) or base.content not in names:
        _no_source(problems, base, names, f"{path}.base")
    elif kind is not None and not kind.based:
        problems.add(node.lines["base"], f"{path}.base: the operator has no base; list it under sources, or remove it")
    return str(base.content)


def _no_source(problems: Problems, node: Node, names: Collection[str], path: str) -> None:
    from evomerge.errors import nearest

    hint = nearest(str(node.content), names)
    problems.add(node.line, f"{path}: there is no member or recipe {node.shown}; {hint}there are {', '.join(names)}")


def _settings(path: str, node: Node, kind: Operator, models: Collection[str], problems: Problems) -> dict[str, Setting]:
    known = {one.name: one for one in kind.parameters}
    given = node.child("parameters") or Node({}, node.line)
    path = f"{path}.parameters"
    if given.content is not None and not isinstance(given.content, dict):
        problems.add(given.line, f"{path} is {given.shown}; give {', '.join(known) or 'nothing: it has none'}")
        return {}
    content = given.content or {}
    for key in content.keys() - known.keys():
        unknown(problems, given.lines[key], key, known, path)
    readers = {name: Reader(one, models, problems) for name, one in known.items()}
    return {
        name: reader.read(f"{path}.{name}", content[name])
        if name in content
        else reader.default(f"{path}.{name}", given.line)
        for name, reader in readers.items()
    }
