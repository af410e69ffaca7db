"""What differs between two configurations of one study, and which differences leave its search as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from evomerge import plugins
from evomerge.config.annotations import dataclasses_of, step_into
from evomerge.config.unions import meant
from evomerge.errors import PluginError
from evomerge.settings import Choice, StudySettings


@dataclass(frozen=True, slots=True)
class Difference:
    """One key with its value then and now (JSON text; ``-`` where it is absent)."""

    key: str
    old: str
    new: str
    harmless: bool

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def canonical(settings: StudySettings) -> dict[str, str]:
    """The settings as JSON text, section by section, defaults written out. Mappings keep their order: it matters."""
    return {one.name: canonical_text(getattr(settings, one.name)) for one in fields(settings)}


def digest(sections: Mapping[str, str]) -> dict[str, str]:
    """The digest of each section of `canonical`: 16 hexadecimal digits of BLAKE2b."""
    return {name: hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for name, text in sections.items()}


def plugin_of(section: str, name: str) -> type[Any]:
    """The plugin that a section which is a `Choice` names.

    Raises:
        PluginError: it is not installed.
    """
    return plugins.strategy(name) if section == "strategy" else plugins.fitness(name)


def completed(sections: Mapping[str, str]) -> dict[str, str]:
    """A result of `canonical` that may be an earlier version's: keys that it did not know have today's defaults.

    Other keys, and the settings of a plugin that is not installed (any more), stay as they are.
    """
    plain = {name: json.loads(text) for name, text in sections.items()}
    for name in ("strategy", "fitness"):
        if name in plain:
            plain[name] = _filled(Choice, plain[name], name)
    return {name: canonical_text(value) for name, value in _filled(StudySettings, plain).items()}


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Difference, ...]:
    """What differs between two results of `canonical`, key by key; ``old`` may be an earlier version's."""
    found = []
    old, same = completed(old), _harmless_settings(new)
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) == new.get(name):
            continue
        before = dict(_leaves(name, json.loads(old.get(name, "{}"))))
        after = dict(_leaves(name, json.loads(new.get(name, "{}"))))
        for key in dict.fromkeys((*before, *after)):
            a, b = before.get(key, "-"), after.get(key, "-")
            if a != b:
                found.append(Difference(key, a, b, key in same or harmless(key, a, b)))
    return tuple(found)


def _harmless_settings(sections: Mapping[str, str]) -> frozenset[str]:
    """Keys of the fitness's own settings of which it says that they change no score."""
    with suppress(PluginError, KeyError):
        kind = plugin_of("fitness", json.loads(sections["fitness"])["name"])
        return frozenset(f"fitness.settings.{name}" for name in getattr(kind.Settings, "harmless", ()))
    return frozenset()


def harmless(key: str, old: str, new: str) -> bool:
    """Whether the search goes on exactly as it began although ``key`` changed.

    Where candidates are scored and kept does not matter, nor when the search ends and how many are compared then. The
    place of a pool member, or of a file of its statistics, may change because its content is compared by digest.
    Everything else is the search itself.
    """
    section, _, rest = key.partition(".")
    if section == "pool":
        places = rest == "base" or rest.startswith(("members.", "statistics."))
        return places and old.startswith('"') and new.startswith('"')
    return section in ("budget", "executor", "finalists", "store")


def canonical_text(value: Any) -> str:
    """One value as JSON: dataclasses as mappings of all their fields, in order."""
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _filled(hint: Any, value: Any, section: str = "") -> Any:
    """A plain value with the defaults that its annotation has for absent keys, keys in the order of their fields.

    Within a ``section`` that is a plugin's, those of the plugin and of others named in its settings, too.
    """
    if isinstance(value, list):
        return [_filled(step_into(hint, at), item, section) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    hint = meant(hint, value) or hint
    kinds = dataclasses_of(hint)
    if section and Choice in kinds:
        with suppress(PluginError):
            return value | {"settings": _filled(plugin_of(section, value["name"]).Settings, value["settings"], section)}
        return value
    known = fields(kinds[0]) if len(kinds) == 1 else ()
    full = {one.name: value[one.name] if one.name in value else _default(one) for one in known}
    full = {key: item for key, item in full.items() if item is not MISSING} | value
    return {key: _filled(step_into(hint, key), item, section) for key, item in full.items()}


def _default(one: Field[Any]) -> Any:
    """A field's default as a plain value; ``MISSING`` if it has none."""
    return _plain(one.default if one.default_factory is MISSING else one.default_factory())


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path, canonical_text(value)
        return
    for key, item in value.items():
        yield from _leaves(f"{path}.{key}", item)
    if len(value) > 1:
        yield f"{path} (order of keys)", ", ".join(value)
