"""Who may use a pool server: names with the SHA-256 of their tokens. A token itself is shown once and kept nowhere.

Tokens are 256 random bits, so that a plain hash of one can be neither guessed nor reversed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError

PREFIX = "evomerge_"
_NAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Holder:
    """The holder of a token: a name for the audit log, and limits in the place of the server's (``None``: its)."""

    name: str
    sha256: str = ""
    evaluations: int | None = None
    items: int | None = None


ANYONE = Holder("anyone")
"""Who asks where no tokens are wanted."""


class Tokens:
    """A tokens file, read again when it changes: a token that is taken out of it is refused from then on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._holders: tuple[Holder, ...] = ()
        self._read()

    def holder(self, token: str) -> Holder | None:
        """Whose token it is. Takes equally long for every wrong one."""
        self._read()
        presented = _hash(token)
        found = None
        for one in self._holders:
            if hmac.compare_digest(one.sha256, presented):
                found = one
        return found

    def _read(self) -> None:
        """Read the file if it is another than before; one that has become unreadable lets nobody in."""
        try:
            stat = self._path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp != self._stamp:
                self._holders = ()
                self._holders = read(self._path)
                self._stamp = stamp
        except FileNotFoundError:
            raise ConfigError(
                f"there is no tokens file {self._path}; 'evomerge serve-token NAME --tokens FILE' makes one"
            ) from None


def read(path: Path) -> tuple[Holder, ...]:
    """The holders in a tokens file.

    Raises:
        ConfigError: it is none.
        FileNotFoundError: there is none.
    """
    try:
        content: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return tuple(Holder(name, **one) for name, one in content.items())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no tokens file ({type(error).__name__}); make a new one") from error


def add(path: Path, name: str, evaluations: int | None = None, items: int | None = None) -> str:
    """A new token for ``name``, whose hash is put into the file, which is made if need be.

    Raises:
        ConfigError: the name has one already, or is none, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a token's holder; use up to 64 letters, digits, '.', '-', '@', '_'")
    holders = read(path) if path.exists() else ()
    if any(one.name == name for one in holders):
        raise ConfigError(f"{name!r} has a token in {path}; take it out there, or choose another name")
    token = PREFIX + secrets.token_urlsafe(32)
    content = {one.name: asdict(one) for one in (*holders, Holder(name, _hash(token), evaluations, items))}
    for one in content.values():
        del one["name"]
    _write(path, json.dumps(content, indent=2) + "\n")
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    """All or nothing, readable by the owner alone."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose another place") from error
