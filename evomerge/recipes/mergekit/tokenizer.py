"""Which vocabulary a mergekit YAML gives the result, and which rows its tokens; references to models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from evomerge.config.values import unknown
from evomerge.config.yamlfile import Node, Problems

_TOKENIZER = ("source", "tokens", "pad_to_multiple_of")
_TOKEN = ("source", "force")
_KINDS = "give a model, {kind: zero}, or {kind: model_token, model: ..., token: ...} (or token_id)"


@dataclass(frozen=True)
class Token:
    """Whose row a token has (``None``: zeros), of which token there or of which number; and whether all models do."""

    model: str | None
    token: str | int | None
    force: bool


@dataclass(frozen=True)
class Tokenizer:
    """Which vocabulary the result has: ``union``, ``base``, or that of a model; and what its size is a multiple of."""

    source: str
    multiple: int = 1
    tokens: Mapping[str, Token] = field(default_factory=dict)


def tokenizer_of(root: Node, models: Collection[str], problems: Problems) -> Tokenizer | None:
    """From ``tokenizer``, or the older ``tokenizer_source``; ``models`` are those that are merged."""
    node, legacy = root.child("tokenizer"), root.child("tokenizer_source")
    if node is not None and legacy is not None:
        problems.add(legacy.line, "tokenizer_source and tokenizer are two ways to say one thing; keep one of them")
    if node is None:
        return None if legacy is None or legacy.content is None else Tokenizer(_vocabulary(legacy, problems))
    if not isinstance(node.content, dict):
        problems.add(node.line, f"tokenizer is {node.shown}; give keys and values below it: {', '.join(_TOKENIZER)}")
        return None
    for key in node.content.keys() - set(_TOKENIZER):
        unknown(problems, node.lines[key], key, _TOKENIZER, "tokenizer")
    tokens, multiple, source = (node.child(key) for key in ("tokens", "pad_to_multiple_of", "source"))
    listed = tokens.content if tokens is not None and isinstance(tokens.content, dict) else {}
    rules = {token: rule for token, one in listed.items() if (rule := _token(token, one, models, problems))}
    count = multiple.content if multiple is not None else None
    if count is not None and (type(count) is not int or count < 1):
        problems.add(node.line, "tokenizer.pad_to_multiple_of must be a whole number > 0")
    return Tokenizer("union" if source is None else _vocabulary(source, problems), count or 1, rules)


def _vocabulary(node: Node, problems: Problems) -> str:
    found = reference(node)
    if found is None:
        problems.add(node.line, f"the tokenizer's source is {node.shown}; give union, base, or a model")
    return (found or "").removeprefix("model:")


def _token(token: str, node: Node, models: Collection[str], problems: Problems) -> Token | None:
    """A rule for one token, or ``None`` with its problems added."""
    if not isinstance(node.content, dict):
        problems.add(node.line, f"tokenizer.tokens.{token} is {node.shown}; give a mapping with its source")
        return None
    for key in node.content.keys() - set(_TOKEN):
        unknown(problems, node.lines[key], key, _TOKEN, f"tokenizer.tokens.{token}")
    source, forced = node.child("source"), node.child("force")
    force = forced is not None and forced.content is True
    kind = None if source is None else source.child("kind")
    if kind is not None and kind.content == "zero":
        return Token(None, None, force)
    named = source if kind is None or source is None else source.child("model")
    model = None if named is None else reference(named)
    of = _one_of(source) if kind is not None and source is not None else None
    if model is None or (kind is not None and (kind.content != "model_token" or of is None)):
        problems.add(node.line, f"tokenizer.tokens.{token} has no source that is known; {_KINDS}")
        return None
    if model not in models:
        problems.add(node.line, f"tokenizer.tokens.{token}: {model} is not merged; name one of {', '.join(models)}")
        return None
    return Token(model, of, force)


def _one_of(source: Node) -> str | int | None:
    """The token or number that a ``model_token`` names; ``None`` unless it is exactly one."""
    token, number = source.child("token"), source.child("token_id")
    given = [one.content for one in (token, number) if one is not None and one.content is not None]
    if len(given) != 1 or type(given[0]) is not (str if number is None or number.content is None else int):
        return None
    found: str | int = given[0]
    return found


def reference(node: Node) -> str | None:
    """A model as text, ``path``, ``path@revision`` or with ``+adapter``; ``None`` if the node is no reference."""
    if isinstance(node.content, str):
        return node.content
    model, lora = node.child("model"), node.child("lora")
    parts = [_path(one) for one in (model, lora) if one is not None and one.content is not None]
    return "+".join(one for one in parts if one) if parts and all(parts) else None


def _path(node: Node) -> str | None:
    if isinstance(node.content, str):
        return node.content
    path, revision = node.child("path"), node.child("revision")
    if path is None or not isinstance(path.content, str):
        return None
    return path.content if revision is None or revision.content is None else f"{path.content}@{revision.content}"
