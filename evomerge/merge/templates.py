"""Chat templates: how a conversation becomes text for a model, as Jinja in its tokenizer's files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from evomerge.errors import PoolError
from evomerge.merge.source import read_json

AUTO = "auto"
"""Instead of a template: that of most models."""

_TEXT = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_KEY = "chat_template"


def chosen(template: str, folders: Iterable[Path]) -> str | None:
    """A template, or for `AUTO` the one that most folders have: of equally many, the first one's; ``None`` if none has.

    Raises:
        PoolError: the text is no template, or a folder's files cannot be read.
    """
    if template == AUTO:
        found = Counter(text for folder in folders if (text := template_of(folder)))
        return found.most_common(1)[0][0] if found else None
    if "{" not in template:
        raise PoolError(f"pool.chat_template is {template!r}, which is no Jinja template; give its text, or auto")
    return template


def template_of(folder: Path) -> str | None:
    """The template in a tokenizer's folder, without white space around it.

    Raises:
        PoolError: its files cannot be read.
    """
    path = folder / _TEXT
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError) as error:
            raise PoolError(f"cannot read {path}: {error}; download the tokenizer again") from error
    config = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    found = config.get(_KEY)
    if isinstance(found, list):  # several by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found.strip() or None if isinstance(found, str) else None


def with_template(contents: Mapping[str, bytes], template: str) -> dict[str, bytes]:
    """A folder's files, by name, with another template: in its own file, and where older readers look for it.

    Raises:
        PoolError: the tokenizer's config cannot be read.
    """
    changed = {**contents, _TEXT: template.encode()}
    try:
        config = json.loads(contents.get(_CONFIG, b"{}"))
    except (ValueError, RecursionError) as error:
        raise PoolError(f"{_CONFIG} is no JSON ({error}); download the tokenizer again") from error
    if isinstance(config, dict) and _KEY in config:
        changed[_CONFIG] = (json.dumps({**config, _KEY: template}, indent=2, ensure_ascii=False) + "\n").encode()
    return changed
