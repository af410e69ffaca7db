"""YAML text as a tree that remembers the line of every key and value.

Scalars follow YAML 1.2's core schema, so that ``1e-3`` is a number, ``no`` is a word and ``10:20`` is not a count of
seconds. Anchors, tags and several documents in one file are refused; environment variables mean nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from evomerge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Node:
    """One value: ``content`` is a scalar, a dict or a list of nodes; ``lines`` holds the line of each key, from 1."""

    content: Any
    line: int
    text: str = ""
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.content, dict):
            return {key: node.plain for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain for node in self.content]
        return self.content

    @property
    def shown(self) -> str:
        """The value as an error message names it."""
        if self.content is None or self.content == {}:
            return "empty"
        if isinstance(self.content, (dict, list)):
            return "a mapping" if isinstance(self.content, dict) else "a list"
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        return repr(text) if isinstance(self.content, str) else text

    def child(self, step: int | str) -> Node | None:
        """The node one step further in; None where there is none."""
        if isinstance(self.content, dict):
            return self.content.get(step)
        if isinstance(self.content, list) and isinstance(step, int) and step < len(self.content):
            return cast(Node, self.content[step])
        return None


class Problems:
    """Everything wrong with one file, gathered so that it can be said at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[tuple[int, str], None] = {}

    def add(self, line: int, text: str) -> None:
        """Note one; the same text at the same line counts once."""
        self._found[line, text] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        """End here if anything was found.

        Raises:
            ConfigError: one line ``file:line: what is wrong; what is right`` for each, in order of lines.
        """
        if self._found:
            raise ConfigError("\n".join(f"{self.file}:{line}: {text}" for line, text in sorted(self._found)))


def parse(text: str, problems: Problems) -> Node:
    """The tree of the only document in ``text``.

    Raises:
        ConfigError: it is no YAML. Duplicate keys are added to ``problems``.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = ", ".join(part for part in (error.context, error.problem) if part)
        problems.add(mark.line + 1 if mark else 1, f"not readable as YAML ({why}); {_cure(why)}")
        problems.raise_any()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(line, f"not readable as YAML (character U+{error.character:04X} is not allowed); remove it")
        problems.raise_any()
    return Node({}, 1) if root is None else _node(root, problems)


def _cure(why: str) -> str:
    if "\\t" in why or "'\t'" in why:
        return "indent with spaces, never with tabs"
    if "alias" in why:
        return "write the value out"
    return "check indentation, colons and quotes here"


class _Loader(yaml.SafeLoader):
    """Composes nodes with the scalars of YAML 1.2, and no aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol: a class attribute to fill

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"alias *{event.anchor} is not supported", event.start_mark)
        return super().compose_node(parent, index)


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
for _tag, _pattern, _first in (
    (_NULL, r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def _node(node: yaml.Node, problems: Problems) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, problems)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item, problems) for item in node.value], line)
    return Node(_scalar(node, problems), line, node.value)


def _mapping(node: yaml.MappingNode, problems: Problems) -> Node:
    content: dict[str, Node] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line, key = key_node.start_mark.line + 1, key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            problems.add(line, "a key is a list or mapping; keys must be names")
        elif key in content:
            problems.add(line, f"{key!r} is here for the second time (first on line {lines[key]}); keep one of the two")
        else:
            content[key], lines[key] = _node(value_node, problems), line
    return Node(content, node.start_mark.line + 1, lines=lines)


def _scalar(node: yaml.Node, problems: Problems) -> Any:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        return int(text)
    if node.tag == _FLOAT:
        return float(text) if math.isfinite(float(text)) else text
    if node.tag != "tag:yaml.org,2002:str":
        problems.add(node.start_mark.line + 1, f"the tag {node.tag!r} is not supported; write plain text or a number")
    return text
