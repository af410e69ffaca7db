"""A model's tokens: read from its tokenizer files, and the union of several models' tokens as a new tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evomerge.errors import PoolError
from evomerge.merge.source import read_json

Tokens = dict[str, int]
"""Token to number."""

FAST = "tokenizer.json"
FILES = (
    "*tokenizer*.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
)
"""Names of all that a tokenizer may consist of."""

_SLOW = ("tokenizer.model", "spiece.model", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
"""Other forms of what `FAST` says, which a union does not write."""

_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
"""How a token is added that was an ordinary one where it comes from."""


def files(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder, in name order."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for path in paths if any(fnmatchcase(path.name, pattern) for pattern in FILES)]


def tokens_of(folder: Path) -> Tokens | None:
    """The tokens of the tokenizer in a folder, added ones included; ``None`` if there is none that can be read.

    Raises:
        PoolError: a damaged file.
    """
    if (folder / FAST).is_file():
        return _fast(folder / FAST)
    if (folder / "vocab.json").is_file():
        found = _numbers(folder / "vocab.json", read_json(folder / "vocab.json"))
        added = folder / "added_tokens.json"
        return found | (_numbers(added, read_json(added)) if added.is_file() else {})
    if (folder / "vocab.txt").is_file():
        return _lines(folder / "vocab.txt")
    return None


def _fast(path: Path) -> Tokens:
    table = read_json(path)
    return _fast_model(path, table) | {added["content"]: added["id"] for added in _added(path, table)}


def _fast_model(path: Path, table: Mapping[str, Any]) -> Tokens:
    """The tokens without the added ones."""
    model = table.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # unigram models list (token, log-probability)
        if not all(isinstance(pair, list) and pair and isinstance(pair[0], str) for pair in vocabulary):
            raise _damaged(path)
        vocabulary = {pair[0]: number for number, pair in enumerate(vocabulary)}
    return _numbers(path, {} if vocabulary is None else vocabulary)


def _added(path: Path, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    added = table.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(one, dict) for one in added):
        raise _damaged(path)
    if not all(isinstance(one.get("content"), str) and _is_number(one.get("id")) for one in added):
        raise _damaged(path)
    return added


def _numbers(path: Path, found: Any) -> Tokens:
    if not isinstance(found, dict) or not all(map(_is_number, found.values())):
        raise _damaged(path)
    return dict(found)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _damaged(path: Path) -> PoolError:
    return PoolError(f"{path} gives no number to each token; download the tokenizer again")


def _lines(path: Path) -> Tokens:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise PoolError(f"cannot read {path}: {error}; download the tokenizer again") from error
    return {line: number for number, line in enumerate(lines)}


def union(home: Path, others: Iterable[Path], more: Iterable[str] = ()) -> tuple[Tokens, bytes]:
    """The tokenizer in ``home`` with all tokens that only others have: its tokens, and the text of its `FAST` file.

    Tokens keep the numbers that they have in ``home``. New ones follow, folder by folder in the order of their
    numbers, and then ``more``; they are matched whole in a text, before anything is split, since their merges are not
    known to it.

    Raises:
        PoolError: a folder without a tokenizer that can be read, or ``home``'s numbers leave gaps.
    """
    path = home / FAST
    if not path.is_file():
        raise PoolError(
            f"{home} has no {FAST}, to which the other models' tokens could be added; save its tokenizer with "
            "transformers' save_pretrained, or set pool.vocabulary to another"
        )
    table, tokens = read_json(path), required(home)
    if _next_number(path, table) != len(tokens) or sorted(tokens.values()) != list(range(len(tokens))):
        raise PoolError(
            f"{path}: its numbers leave gaps or repeat, so no token can be added; set pool.vocabulary to base, or to "
            "a member or folder whose tokenizer has all that is needed"
        )
    added = list(_added(path, table))
    for folder in others:
        settings = _settings(folder / FAST)
        for token in sorted(required(folder).items(), key=lambda item: item[1]):
            if token[0] not in tokens:
                tokens[token[0]] = len(tokens)
                added.append({**settings.get(token[0], _ADDED), "id": tokens[token[0]], "content": token[0]})
    for one in more:
        if one not in tokens:
            tokens[one] = len(tokens)
            added.append({**_ADDED, "id": tokens[one], "content": one})
    text = json.dumps({**table, "added_tokens": added}, ensure_ascii=False, indent=2)
    return tokens, text.encode()


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    """How a tokenizer matches its added tokens, by token."""
    return {one["content"]: one for one in _added(path, read_json(path))} if path.is_file() else {}


def _next_number(path: Path, table: Mapping[str, Any]) -> int:
    """The number that the tokenizers library gives the next added token, whatever the file says."""
    model = len(_fast_model(path, table))
    last = max((one["id"] for one in _added(path, table)), default=-1)
    return last + 1 if last >= model else model


def required(folder: Path) -> Tokens:
    """`tokens_of` a folder that must have some.

    Raises:
        PoolError: it has none, or only in a form that is not read.
    """
    found = tokens_of(folder)
    if found:
        return found
    raise PoolError(
        f"{folder} has no {FAST} (nor vocab.json or vocab.txt) that says its tokens; save its tokenizer there with "
        "transformers' save_pretrained"
    )


def replacing(target: Path, old: Path) -> dict[str, bytes | None]:
    """What changes in the folder ``old`` if it gets the tokenizer of ``target``."""
    if target == old:
        return {}
    gone: dict[str, bytes | None] = {path.name: None for path in files(old)}
    return gone | {path.name: path.read_bytes() for path in files(target)}


def extended(text: bytes, home: Path, old: Path) -> dict[str, bytes | None]:
    """What changes in the folder ``old`` if it gets the tokenizer of ``home`` with this text in its `FAST` file."""
    slow: dict[str, bytes | None] = {path.name: None for path in files(home) if path.name in _SLOW}
    return {**replacing(home, old), **slow, FAST: text}
