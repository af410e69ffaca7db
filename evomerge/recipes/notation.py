"""Reading a parameter's value from a recipe file: from YAML nodes to a `Setting`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

from evomerge.config.values import unknown
from evomerge.config.yamlfile import Node, Problems
from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Parameter
from evomerge.recipes.parameters import ByCase, ByGroup, ByModel, Case, Fixed, Gradient, Layers, Setting

_WORDS = "a number, a list of numbers along the layers, {model: value}, groups: {group: value}, or a list of cases"
_CASE = ("filter", "layers", "value")


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads values of one parameter; only ``models`` may be named in them. What is wrong goes to ``problems``."""

    parameter: Parameter
    models: Collection[str]
    problems: Problems

    def read(self, path: str, node: Node) -> Setting:
        """The value that a node holds; ``path`` is what problems call it."""
        content = node.content
        if isinstance(content, dict) and content:
            groups = content.get("groups")
            if groups is not None and len(content) == 1 and isinstance(groups.content, dict):
                return self._by_group(f"{path}.groups", groups)
            return self._by_model(path, node)
        if not isinstance(content, list) or not content:
            return Fixed(path, node.line, self._number(path, node))
        numbered = [(f"{path}[{at}]", one) for at, one in enumerate(content)]
        if all(isinstance(one.content, dict) for one in content):
            return ByCase(path, node.line, tuple(self._case(*one) for one in numbered))
        return Gradient(path, node.line, tuple(self._number(*one) for one in numbered))

    def default(self, path: str, line: int) -> Setting:
        """The operator's own value, where the file says nothing."""
        return Fixed(path, line, float(self.parameter.default))

    def _number(self, path: str, node: Node) -> float:
        if isinstance(node.content, bool) or not isinstance(node.content, int | float):
            self.problems.add(node.line, f"{path} is {node.shown}; give {_WORDS}")
            return float(self.parameter.default)
        try:
            self.parameter.check(float(node.content))
        except RecipeError as error:
            self.problems.add(node.line, f"{path}: {error}")
        return float(node.content)

    def _by_group(self, path: str, node: Node) -> Setting:
        of = {name: self.read(f"{path}.{name}", one) for name, one in node.content.items()}
        return ByGroup(path, node.line, of, node.lines)

    def _by_model(self, path: str, node: Node) -> Setting:
        if self.parameter.per == "segment":
            self.problems.add(node.line, f"{path}: {self.parameter.name} is one for all models; name no models here")
            return self.default(path, node.line)
        for name in node.content.keys() - set(self.models):
            unknown(self.problems, node.lines[name], name, self.models, path)
        return ByModel(path, node.line, {name: self.read(f"{path}.{name}", one) for name, one in node.content.items()})

    def _case(self, path: str, node: Node) -> Case:
        for key in node.content.keys() - set(_CASE):
            unknown(self.problems, node.lines[key], key, _CASE, path)
        pattern, layers, inner = (node.child(key) for key in _CASE)
        if pattern is not None and not isinstance(pattern.content, str):
            self.problems.add(pattern.line, f"{path}.filter is {pattern.shown}; give a pattern of tensor names")
        if inner is None:
            self.problems.add(node.line, f"{path} lacks the key 'value'; give {_WORDS}")
        return Case(
            self.default(path, node.line) if inner is None else self.read(f"{path}.value", inner),
            None if pattern is None else str(pattern.content),
            None if layers is None else self._layers(f"{path}.layers", layers),
        )

    def _layers(self, path: str, node: Node) -> Layers:
        try:
            return layer_range(str(node.content))
        except ValueError:
            self.problems.add(node.line, f"{path} is {node.shown}; give a layer such as 3, or a range such as 0:8")
            return (0,)


def layer_range(text: str) -> Layers:
    """The layers of ``"3"``, ``"0:8"`` (without 8) or ``"0:2,6:8"``.

    Raises:
        ValueError: it is of no such form, or names no layer.
    """
    pieces = [piece.split(":") for piece in text.split(",")]
    spans = [range(int(piece[0]), int(piece[-1]) + (len(piece) == 1)) for piece in pieces]
    found = tuple(chain.from_iterable(spans))
    if not found or min(found) < 0 or max(map(len, pieces)) > 2:
        raise ValueError(text)
    return found
