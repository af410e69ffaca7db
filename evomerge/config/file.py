"""A YAML study file into `StudySettings`; every error says file, line, what is wrong and what is right."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from evomerge import plugins
from evomerge.config.annotations import described
from evomerge.config.values import choice, unknown, value
from evomerge.config.yamlfile import Node, Problems, parse
from evomerge.errors import ConfigError
from evomerge.fitness import Splits
from evomerge.settings import StudySettings

T = TypeVar("T")

_RANGES = "give ranges of items such as 0:1000 or 0:100,200:300"


@dataclass(frozen=True)
class SettingsFile(Generic[T]):
    """A file of settings that was read: its absolute path, its text, and what it says."""

    path: Path
    text: str
    settings: T

    @property
    def root(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self.path.parent


StudyFile = SettingsFile[StudySettings]
"""A study file that was read."""


def read(path: Path) -> StudyFile:
    """Read and validate a study file.

    Raises:
        ConfigError: it cannot be read, or holds errors; all of them are listed.
    """
    return read_as(StudySettings, path, "study file", "'evomerge init' writes one to start from")


def read_as(kind: type[T], path: Path, what: str, cure: str) -> SettingsFile[T]:
    """Read and validate a file whose sections are those of the dataclass ``kind``.

    ``what`` is what errors call such a file, ``cure`` what to do if there is none.

    Raises:
        ConfigError: it cannot be read, or holds errors; all of them are listed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no {what} {path}; {cure}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name the {what} in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); name a YAML {what}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    absolute = path.absolute()
    plugins.allow(absolute.parent)
    return SettingsFile(absolute, text, _settings(kind, text, str(path), what))


def settings_of(text: str, file: str = "study file") -> StudySettings:
    """The settings that a study file's text stands for; ``file`` is only its name in errors.

    Raises:
        ConfigError: listing every error with its line.
    """
    return _settings(StudySettings, text, file, "study file")


def _settings(kind: type[T], text: str, file: str, what: str) -> T:
    problems = Problems(file)
    root = parse(text, problems)
    if not isinstance(root.content, dict):
        problems.add(root.line, f"the file is {root.shown}; a {what} is a mapping of keys to values")
        problems.raise_any()
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for key, node in root.content.items():
        if key not in hints:
            unknown(problems, root.lines[key], key, hints)
        elif key == "strategy":
            found[key] = choice(key, node, problems, "strategies")
        elif key == "fitness":
            found[key] = choice(key, node, problems, "fitness")
        else:
            found[key] = _splits(node, problems) if key == "splits" else value(hints[key], node, key, problems)
    _require_keys(kind, root, hints, problems)
    problems.raise_any()
    return kind(**found)


def _require_keys(kind: Any, root: Node, hints: dict[str, Any], problems: Problems) -> None:
    for one in fields(kind):
        if one.name not in root.content and one.default is MISSING and one.default_factory is MISSING:
            problems.add(root.line, f"the key {one.name!r} is missing; give {described(hints[one.name])}")


def _splits(node: Node, problems: Problems) -> Splits | None:
    known = tuple(one.name for one in fields(Splits))
    if not isinstance(node.content, dict):
        problems.add(node.line, f"splits is {node.shown}; give a mapping with the keys {', '.join(known)}")
        return None
    ranges: dict[str, tuple[tuple[int, int], ...]] = {}
    for key, inner in node.content.items():
        if key not in known:
            unknown(problems, node.lines[key], key, known, "splits")
            continue
        try:
            ranges[key] = _ranges(inner.content)
        except ValueError:
            problems.add(inner.line, f"splits.{key} is {inner.shown}; {_RANGES}")
    if "search" not in node.content:
        problems.add(node.line, f"splits lacks the key 'search'; {_RANGES}")
    if problems or "search" not in ranges:
        return None
    splits = Splits(**ranges)
    try:
        splits.check()
    except ConfigError as error:
        problems.add(node.line, str(error))
    return splits


def _ranges(content: object) -> tuple[tuple[int, int], ...]:
    if content is None:
        return ()
    if not isinstance(content, str):
        raise ValueError
    pieces = [piece.split(":") for piece in content.split(",") if piece.strip()]
    return tuple((int(start), int(stop)) for start, stop in pieces)
