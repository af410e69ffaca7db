"""Reading labelled texts from JSON-lines and CSV files, refusing a bad line by its number."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Example:
    """A text, its label as written, and the line of the file where it ends."""

    text: str
    label: object
    line: int


def read_examples(path: Path, text_field: str = "text", label_field: str = "label") -> tuple[Example, ...]:
    """All examples of a ``.jsonl`` or ``.csv`` file (UTF-8), in order; blank lines are skipped.

    Raises:
        ConfigError: no such file, another kind of file, nothing in it, or a bad line, naming file and line.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv}
    if path.suffix not in readers:
        raise ConfigError(f"{path} is neither .jsonl nor .csv; texts are read from these two")
    try:
        found = tuple(_example(row, line, path, text_field, label_field) for line, row in readers[path.suffix](path))
    except FileNotFoundError:
        raise ConfigError(f"there is no data file {path}; correct the path in the fitness settings") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not found:
        raise ConfigError(f"{path} is empty; there is nothing to score")
    return found


def _json_lines(path: Path) -> Iterator[tuple[int, object]]:
    with path.open(encoding="utf-8") as file:
        for line, content in enumerate(file, 1):
            if content.strip():
                try:
                    yield line, json.loads(content)
                except ValueError as error:
                    raise ConfigError(f"{path}:{line}: not JSON: {error}") from None


def _csv(path: Path) -> Iterator[tuple[int, object]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    columns = len(reader.fieldnames or ())
                    raise ConfigError(f"{path}:{reader.line_num}: the row has not the header's {columns} columns")
                yield reader.line_num, row
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _example(row: object, line: int, path: Path, text_field: str, label_field: str) -> Example:
    if not isinstance(row, dict):
        raise ConfigError(f"{path}:{line}: not an object; write {{{text_field!r}: ..., {label_field!r}: ...}}")
    for name in (text_field, label_field):
        if name not in row:
            have = ", ".join(map(str, row)) or "nothing"
            raise ConfigError(f"{path}:{line}: no field {name!r}, only {have}; set text_field and label_field")
    if not isinstance(row[text_field], str):
        raise ConfigError(f"{path}:{line}: field {text_field!r} is {row[text_field]!r}, not text")
    return Example(row[text_field], row[label_field], line)
