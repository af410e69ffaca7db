"""The structure of a mergekit YAML: slices of models, and parameters at four levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evomerge.config.values import unknown
from evomerge.config.yamlfile import Node, Problems
from evomerge.recipes.mergekit.tokenizer import Tokenizer, reference, tokenizer_of

DTYPES = ("float64", "float32", "float16", "bfloat16")

_TOP = (
    "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype", "tokenizer",
    "tokenizer_source", "chat_template",
)  # fmt: skip
_MODULE = ("models", "slices", "parameters")

Levels = tuple[Node, ...]
"""Mappings of parameters, those that count first at the front."""


@dataclass(frozen=True)
class Input:
    """A model of a slice: its reference as written, its layers (half-open; ``None``: all), its own parameters."""

    model: str
    line: int
    layers: tuple[int, int] | None
    parameters: Levels


@dataclass(frozen=True)
class Slice:
    """Layers that are merged alike: the inputs, which of them is the base, and the parameters of all."""

    inputs: tuple[Input, ...]
    base: str | None
    parameters: Levels
    line: int

    @property
    def count(self) -> int | None:
        """How many layers it has; ``None``: all of the models'."""
        layers = self.inputs[0].layers
        return layers and layers[1] - layers[0]

    @property
    def others(self) -> tuple[Input, ...]:
        """The inputs but the base."""
        return tuple(one for one in self.inputs if one.model != self.base)


@dataclass(frozen=True)
class Config:
    """A whole file."""

    method: str
    line: int
    base: str | None
    slices: tuple[Slice, ...]
    dtype: str | None
    tokenizer: Tokenizer | None
    chat_template: str | None
    notes: tuple[str, ...]


def read(root: Node, problems: Problems) -> Config | None:
    """What a file says, or ``None`` with its problems added."""
    method = root.child("merge_method")
    if method is None or not isinstance(method.content, str):
        problems.add((method or root).line, "merge_method needs a name; give one such as linear or ties")
        return None
    body, levels = _module(root, problems)
    base = _base(root, problems)
    slices = () if body is None else tuple(_slices(body, base, levels, problems))
    used = dict.fromkeys(one.model for part in slices for one in part.inputs)
    tokenizer = tokenizer_of(root, used, problems)
    dtype = _dtype(root.child("out_dtype"), problems) or _dtype(root.child("dtype"), problems)
    if problems or not slices:
        return None
    template = _template(root)
    return Config(method.content, method.line, base, slices, dtype, tokenizer, template, tuple(_notes(root)))


def _template(root: Node) -> str | None:
    """The text of a chat template, or ``auto``; not the name of one that only mergekit has."""
    said = root.child("chat_template")
    text = said.content if said is not None else None
    return text if isinstance(text, str) and (text == "auto" or "{" in text) else None


def _notes(root: Node) -> Iterator[str]:
    for key, line in root.lines.items():
        if key not in _TOP:
            yield f"line {line}: {key} is left out: mergekit has no such key, and ignores it"
        elif key == "chat_template" and root.content[key].content and _template(root) is None:
            yield f"line {line}: chat_template is left out: its text is mergekit's; give the text as pool.chat_template"


def _module(root: Node, problems: Problems) -> tuple[Node | None, Levels]:
    """Where models or slices are listed, and the parameters beside and above them."""
    levels = tuple(_parameters(root, problems))
    modules = root.child("modules")
    if modules is None:
        return root, levels
    names = list(modules.content) if isinstance(modules.content, dict) else []
    if names != ["default"]:
        problems.add(
            root.lines["modules"],
            f"modules: {', '.join(names) or modules.shown} cannot be imported: a pool is one model, not several with "
            "tensors of their own; merge each module by itself, with the others in pool.exclude",
        )
        return None, levels
    body: Node = modules.content["default"]
    for key in body.content.keys() - set(_MODULE) if isinstance(body.content, dict) else ():
        unknown(problems, body.lines[key], key, _MODULE, "modules.default")
    return body, (*_parameters(body, problems), *levels)


def _parameters(node: Node, problems: Problems) -> Iterator[Node]:
    found = node.child("parameters")
    if found is not None and isinstance(found.content, dict):
        yield found
    elif found is not None and found.content is not None:
        problems.add(found.line, f"parameters is {found.shown}; give name: value pairs")


def _slices(body: Node, base: str | None, levels: Levels, problems: Problems) -> Iterator[Slice]:
    models, slices = body.child("models"), body.child("slices")
    if (models is None) == (slices is None):
        problems.add(body.line, "exactly one of models and slices (or modules) must be there")
        return
    listed = models or slices
    if listed is None or not isinstance(listed.content, list) or not listed.content:
        problems.add((listed or body).line, "models or slices must be a list, with an item for each")
    elif models is not None:
        inputs = tuple(_inputs(listed.content, levels, problems, ranged=False))
        if base is not None and base not in [one.model for one in inputs]:
            inputs += (Input(base, body.line, None, levels),)  # as mergekit does
        yield Slice(inputs, base, levels, listed.line)
    else:
        for node in listed.content:
            yield from _slice(node, base, levels, problems)


def _slice(node: Node, base: str | None, levels: Levels, problems: Problems) -> Iterator[Slice]:
    sources = node.child("sources")
    if sources is None or not isinstance(sources.content, list) or not sources.content:
        problems.add(node.line, "a slice needs sources: a list of models with their layer_range")
        return
    levels = (*_parameters(node, problems), *levels)
    base = _base(node, problems) or base
    inputs = tuple(_inputs(sources.content, levels, problems, ranged=True))
    if base is not None and base not in [one.model for one in inputs]:
        problems.add(node.line, f"the base {base} is not among the slice's sources; list it with its layer_range")
    if len({one.layers and one.layers[1] - one.layers[0] for one in inputs}) > 1:
        problems.add(
            node.line, "the sources of a slice have different numbers of layers; make their ranges equally long"
        )
    yield Slice(inputs, base, levels, node.line)


def _inputs(nodes: Sequence[Node], levels: Levels, problems: Problems, *, ranged: bool) -> Iterator[Input]:
    seen: set[str] = set()
    for node in nodes:
        named = node.child("model")
        model = None if named is None else reference(named)
        if model is None:
            problems.add((named or node).line, "an input needs a model: its path, or its name on the hub")
            continue
        if model in seen:
            problems.add(node.line, f"{model} is listed twice in one slice, which mergekit does not take; list it once")
        seen.add(model)
        layers = _layers(node, problems) if ranged else None
        yield Input(model, node.line, layers, (*_parameters(node, problems), *levels))


def _layers(node: Node, problems: Problems) -> tuple[int, int] | None:
    given = node.child("layer_range")
    ends = given.plain if given is not None else None
    if isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends) and 0 <= ends[0] < ends[1]:
        return ends[0], ends[1]
    problems.add((given or node).line, "layer_range must be [first, last + 1], such as [0, 16], of at least one layer")
    return None


def _base(node: Node, problems: Problems) -> str | None:
    found = node.child("base_model")
    if found is None or found.content is None:
        return None
    base = reference(found)
    if base is None:
        problems.add(found.line, f"base_model is {found.shown}; give its path, or its name on the hub")
    return base


def _dtype(node: Node | None, problems: Problems) -> str | None:
    if node is None or node.content is None:
        return None
    if node.content not in DTYPES:
        problems.add(node.line, f"dtype {node.shown} cannot be written; give one of {', '.join(DTYPES)}")
    return str(node.content)
