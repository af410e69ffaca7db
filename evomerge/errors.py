"""Every error that evomerge raises on purpose.

A message says what is wrong, where, and what to do. The command line prints the message alone and ends with the
class's ``exit_code``; anything that is not an `EvomergeError` is a defect of evomerge and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import ClassVar


class EvomergeError(Exception):
    """Root of all expected errors."""

    exit_code: ClassVar[int] = 1


class ConfigError(EvomergeError):
    """The study file is wrong: unknown key, wrong value, empty or overlapping splits, ..."""

    exit_code = 2


class PluginError(ConfigError):
    """A strategy, fitness or operator cannot be found, or two distributions offer the same name."""


class PoolError(EvomergeError):
    """A pool member is missing, corrupt, not finite, or does not fit the others."""

    exit_code = 2


class RecipeError(EvomergeError):
    """A recipe names a source, group or operator that does not exist, or has impossible values."""

    exit_code = 2


class ExportError(EvomergeError):
    """A model cannot be written where it was asked for."""

    exit_code = 2


class MeasureError(EvomergeError):
    """A model cannot be measured on these examples, or what was measured belongs to another checkpoint."""


class CodecError(EvomergeError):
    """A value cannot be written exactly, or a text is not the value it claims to be."""


class StrategyError(EvomergeError):
    """A strategy was set up or used against its contract."""


class StalledError(StrategyError):
    """A strategy asks for nothing while nothing is in flight and the budget is not spent."""


class EvaluationError(EvomergeError):
    """One candidate could not be built or scored. It is told as failed; it never stops a study."""


class StoreError(EvomergeError):
    """The study database refused."""

    exit_code = 3


class StudyExistsError(StoreError):
    """A study of that name is already in the database."""


class StudyNotFoundError(StoreError):
    """No study of that name is in the database."""


class LeaseError(StoreError):
    """Another driver holds the study, or took it over from this one."""


class SchemaError(StoreError):
    """The database has a newer schema than this evomerge knows, or is no evomerge database."""


class StoreUnavailableError(StoreError):
    """The database went away and stayed away. What was committed is safe; resume when it is back."""

    exit_code = 4


class ResumeError(StoreError):
    """The study cannot go on exactly as it began: changed config, pool, plugin or library versions."""

    exit_code = 5


class ExecutorError(EvomergeError):
    """Workers cannot be started, reached or set up. What was committed is safe; resume when they can."""

    exit_code = 6


class ServiceError(ExecutorError):
    """A server that scores candidates cannot be reached, refuses, or answers nonsense; no candidate is to blame."""


class SpentError(ServiceError):
    """A budget of requests or items is spent, here or at the server; what was told is safe."""


class VerificationError(StoreError):
    """A stored study is not what its strategy makes of the stored results."""

    exit_code = 5


def nearest(word: str, known: Collection[str]) -> str:
    """``"did you mean 'x'? "``, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
