"""Tokens from the environment or a file, which show themselves to nobody but the server they are for."""

from __future__ import annotations

import os
from pathlib import Path

from evomerge.errors import ConfigError


class Secret:
    """A token."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(...)"

    def header(self) -> str:
        """The value of an ``Authorization`` header."""
        return f"Bearer {self._text}"

    def hidden(self, text: str) -> str:
        """A text without the secret."""
        return text.replace(self._text, "...")

    @classmethod
    def found(cls, variable: str | None, file: Path | None) -> Secret | None:
        """The secret in an environment variable, or else in a file; ``None`` where neither is named.

        Raises:
            ConfigError: it is not there, or is no token.
        """
        if variable is not None:
            text, place = os.environ.get(variable, ""), f"the environment variable {variable}"
        elif file is not None:
            place = f"the file {file}"
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"cannot read a token from {place}: {type(error).__name__}; correct its name"
                ) from None
        else:
            return None
        text = text.strip()
        if not text:
            raise ConfigError(f"{place} holds no token; put the one in that the server's owner gave you")
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise ConfigError(f"what {place} holds is no token: it has spaces, line breaks or other odd characters")
        return cls(text)
