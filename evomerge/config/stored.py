"""Settings back from the canonical text that a study's database keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from evomerge.config.changes import completed, plugin_of
from evomerge.config.nested import replaced
from evomerge.errors import ResumeError
from evomerge.settings import Choice, StudySettings

T = TypeVar("T")


def stored(sections: Mapping[str, str]) -> StudySettings:
    """The settings whose `canonical` text this is, maybe an earlier version's; other sections are passed over.

    Raises:
        ResumeError: a section is missing or does not fit this version's settings.
        PluginError: a plugin is not installed (any more).
    """
    hints = get_type_hints(StudySettings, include_extras=True)
    sections = completed(sections)
    found: dict[str, Any] = {}
    for one in fields(StudySettings):
        text = section(sections, one.name)
        found[one.name] = _with_plugins(typed(hints[one.name], text, one.name), one.name)
    return StudySettings(**found)


def _with_plugins(value: Any, name: str) -> Any:
    """The value of a section in which the settings of plugins are still plain: as their plugins' own, at any depth."""

    def settled(choice: Choice) -> Choice:
        kind: Any = plugin_of(name, choice.name).Settings
        return Choice(choice.name, _with_plugins(typed(kind, json.dumps(choice.settings), name), name))

    return replaced(value, settled)


def section(sections: Mapping[str, str], name: str) -> str:
    """The text of one section.

    Raises:
        ResumeError: it is missing.
    """
    if name not in sections:
        raise ResumeError(f"the stored study has no section {name!r}; it was made by another version of evomerge")
    return sections[name]


def typed(kind: type[T], text: str, name: str) -> T:
    """The value of ``kind`` with that canonical text.

    Raises:
        ResumeError: it does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise ResumeError(
            f"the stored {place} does not fit this version's settings ({first['msg']}); use the version of evomerge "
            "and of the plugin that the study began with (evomerge show names them)"
        ) from error
