"""One value of a study file against the annotation it must fit; pydantic finds what is wrong, the words are ours."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, is_dataclass
from typing import Any

from evomerge import plugins
from evomerge.config.annotations import dataclasses_of, described, keys_of, step_into
from evomerge.config.nested import replaced
from evomerge.config.unions import meant, relevant
from evomerge.config.yamlfile import Node, Problems
from evomerge.errors import EvomergeError, PluginError, nearest
from evomerge.settings import Choice


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, the annotation it must fit, and the dotted path of keys that leads to it."""

    hint: Any
    node: Node
    path: str

    def step(self, step: int | str) -> _Place:
        inner = self.node.child(step)
        if inner is None:  # the step is pydantic's name for a member of a union, no key
            return self
        path = f"{self.path}.{step}" if isinstance(step, str) else f"{self.path}[{step}]"
        hint = step_into(self.hint, step)
        return _Place(meant(hint, inner.plain) or hint, inner, path)


def choice(path: str, node: Node, problems: Problems, group: plugins.Group) -> Choice | None:
    """``m2n2``, or ``{name: m2n2, population: 20}`` with the plugin's own settings beside the name."""
    mapping = isinstance(node.content, dict)
    named = node.child("name") if mapping else node
    if named is None or not isinstance(named.content, str):
        known = ", ".join(plugins.names(group))
        problems.add((named or node).line, f"{path} needs a name; give one of {known}, or package.module:Name")
        return None
    plugin: type[Any]
    try:
        plugin = plugins.strategy(named.content) if group == "strategies" else plugins.fitness(named.content)
    except PluginError as error:
        problems.add(named.line, str(error))
        return None
    own = {name: inner for name, inner in node.content.items() if name != "name"} if mapping else {}
    return Choice(named.content, value(plugin.Settings, Node(own, node.line, lines=node.lines), path, problems, group))


def value(hint: Any, node: Node, path: str, problems: Problems, group: plugins.Group = "strategies") -> Any:
    """The value of type ``hint`` that ``node`` holds, or None with its problems added.

    Plugins that are named within it are of ``group``.
    """
    from pydantic import TypeAdapter, ValidationError

    named: list[Choice | None] = []
    plain = _set_aside(_Place(hint, node, path), problems, group, named).plain
    plain = {} if plain is None and is_dataclass(hint) else plain
    try:
        # JSON in strict mode: lists become tuples, mappings dataclasses, but "20" is no number
        found = TypeAdapter(hint).validate_json(json.dumps(plain), strict=True, extra="forbid")
        return replaced(found, lambda one: named[one.settings] or one)
    except ValidationError as error:
        for one in relevant(error.errors(include_url=False), hint, plain):
            _explain(one["type"], one["loc"], one["msg"], _Place(hint, node, path), problems)
    except EvomergeError as error:  # a settings class that checks itself
        problems.add(node.line, f"{path}: {error}")
    return None


def _set_aside(place: _Place, problems: Problems, group: plugins.Group, named: list[Choice | None]) -> Node:
    """The place's node with each plugin in it replaced by its number in ``named``, where it is put."""
    node = place.node
    if Choice in dataclasses_of(place.hint) and node.content is not None:
        named.append(choice(place.path, node, problems, group))
        return Node({"name": Node("", node.line), "settings": Node(len(named) - 1, node.line)}, node.line)
    if isinstance(node.content, dict):
        inner = {key: _set_aside(place.step(key), problems, group, named) for key in node.content}
        return Node(inner, node.line, node.text, node.lines)
    if isinstance(node.content, list):
        items = [_set_aside(place.step(at), problems, group, named) for at in range(len(node.content))]
        return Node(items, node.line, node.text)
    return node


def unknown(problems: Problems, line: int, key: str, known: Collection[str], path: str = "") -> None:
    """Note a key that means nothing, and the nearest that does."""
    inside = f" in {path}" if path else ""
    problems.add(line, f"unknown key {key!r}{inside}; {nearest(key, known)}known keys: {', '.join(known) or 'none'}")


def _explain(kind: str, steps: tuple[int | str, ...], text: str, place: _Place, problems: Problems) -> None:
    """Turn one of pydantic's errors into our words at the right line."""
    about_key = kind in ("missing", "unexpected_keyword_argument")
    for step in steps[:-1] if about_key else steps:
        place = place.step(step)
    node, path = place.node, place.path
    if about_key and kind == "missing":
        problems.add(
            node.line, f"{path} lacks the key {steps[-1]!r}; give {described(step_into(place.hint, steps[-1]))}"
        )
    elif about_key:
        unknown(problems, node.lines[str(steps[-1])], str(steps[-1]), keys_of(place.hint), path)
    elif kind in ("value_error", "assertion_error"):  # raised by a settings class that checks itself
        problems.add(node.line, f"{path}: {text.partition(', ')[2]}")
    else:
        problems.add(node.line, f"{path} is {node.shown}; give {described(place.hint)}")
