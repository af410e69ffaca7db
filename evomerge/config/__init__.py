"""The study file: read into frozen, validated settings, and compared with what a study began with."""

from evomerge.config.changes import Difference, canonical, differences, digest
from evomerge.config.file import StudyFile, read, settings_of

__all__ = ["Difference", "StudyFile", "canonical", "differences", "digest", "read", "settings_of"]
