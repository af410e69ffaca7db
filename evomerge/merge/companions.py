"""The files that belong to a model beside its weights: config, tokenizer, templates."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from evomerge.errors import PoolError
from evomerge.merge.source import Source, read_json
from evomerge.merge.templates import with_template

CONFIG = "config.json"

COMPANIONS = (
    CONFIG,
    "generation_config.json",
    "*tokenizer*.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*processor_config.json",
    "chat_template.*",
)
"""Their names. Never code: a checkpoint's Python files are not passed on."""


def companions(folder: Path) -> list[Path]:
    """Those in a folder, in name order."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in COMPANIONS)
    ]


def folder_of(source: Source, cache: Path, template: str | None = None) -> Path:
    """A folder with the source's own companions: the source's, or where a view changes them a new one in ``cache``.

    With a ``template``, that is its chat template.

    Raises:
        PoolError: the cache cannot be written.
    """
    changed = dict(source.overlay())
    config, path = source.config(), source.folder / CONFIG
    if config and config != read_json(path):
        changed[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    if not changed and template is None:
        return source.folder
    contents = {path.name: path.read_bytes() for path in companions(source.folder)}
    contents |= {name: content for name, content in changed.items() if content is not None}
    wanted = {name: content for name, content in contents.items() if changed.get(name, b"") is not None}
    if template is not None:
        wanted = with_template(wanted, template)
    try:
        return _kept(wanted, cache)
    except OSError as error:
        raise PoolError(
            f"cannot write {error.filename or cache}: {error.strerror}; set XDG_CACHE_HOME to a folder with room"
        ) from error


def _kept(contents: Mapping[str, bytes], cache: Path) -> Path:
    """The folder of exactly these contents. Written beside and renamed, so that it is whole or not there."""
    total = hashlib.blake2b(digest_size=16)
    for name, content in sorted(contents.items()):
        total.update(json.dumps([name, hashlib.blake2b(content).hexdigest()]).encode())
    folder = cache / total.hexdigest()
    if folder.is_dir():
        return folder
    partial = cache / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            (partial / name).write_bytes(content)
        if not folder.is_dir():
            partial.replace(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
