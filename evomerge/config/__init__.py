"""The study file: read into frozen, validated settings, and compared with what a study began with."""

from evomerge.config.changes import Difference, canonical, canonical_text, differences, digest
from evomerge.config.file import SettingsFile, StudyFile, read, read_as, settings_of
from evomerge.config.nested import choices
from evomerge.config.stored import section, stored, typed

__all__ = [
    "Difference",
    "SettingsFile",
    "StudyFile",
    "canonical",
    "canonical_text",
    "choices",
    "differences",
    "digest",
    "read",
    "read_as",
    "section",
    "settings_of",
    "stored",
    "typed",
]
