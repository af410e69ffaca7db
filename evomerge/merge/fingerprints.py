"""Content hashes of tensors, kept between runs under the identity of their files, so that nothing is hashed twice.

A file that changes gets another identity. One that was changed a moment ago may change again within the same tick of
the file system's clock, and is not kept yet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SETTLED = 2.0
"""Seconds after which a file's times tell one content from the next, on any file system."""


def load(folder: Path, identity: str) -> dict[str, str]:
    """Hashes by tensor name; none if they are absent or damaged."""
    try:
        found = json.loads((folder / f"{identity}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if whole else {}


def save(folder: Path, identity: str, hashes: Mapping[str, str], changed: float) -> None:
    """Keep hashes of files that were ``changed`` last at a time. A full or read-only disk only costs the cache."""
    if time.time() - changed < SETTLED:
        return
    beside = folder / f"{identity}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(dict(hashes)), encoding="utf-8")
        beside.replace(folder / f"{identity}.json")
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
