"""What a database keeps about a study, made from its settings and read back without the model pool.

Beside the sections of the study file, `StudyRecord.settings` holds ``problem`` (what the strategy was told), ``data``
(content digests of the fitness's data and of the pool's statistics), ``folder`` (what paths are relative to) and
``given`` (values that the command line put in the place of the file's).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge import config, plugins
from evomerge.errors import ConfigError, ResumeError, StrategyError
from evomerge.settings import StudySettings
from evomerge.spending import wrapped
from evomerge.store.port import StudyRecord
from evomerge.strategy import Problem, Strategy

_LIBRARIES = ("evomerge", "numpy", "torch", "cma", "safetensors", "transformers", "scikit-learn")
"""Distributions whose version may change a result."""

SERVER = "server's "
"""How names of versions begin that are another machine's."""

_NOT_COMPARED = ("folder", "given")


@dataclass(frozen=True)
class Given:
    """What the command line put in the place of the study file's values."""

    budget: int | None = None


def make(
    settings: StudySettings,
    text: str,
    root: Path,
    problem: Problem,
    *,
    pool: Mapping[str, str],
    data: Mapping[str, str],
    given: Given,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> StudyRecord:
    """The record of a study that begins now; ``elsewhere`` are versions on the server that scores its candidates."""
    sections = config.canonical(settings)
    for name, value in (("problem", problem), ("data", dict(data)), ("folder", str(root)), ("given", given)):
        sections[name] = config.canonical_text(value)
    main = problem.objectives[0]
    return StudyRecord(
        name=settings.study,
        config=text,
        settings=sections,
        seed=settings.seed,
        objective=main.name,
        direction=main.direction,
        versions={**versions(settings), **{f"{SERVER}{name}": version for name, version in elsewhere.items()}},
        pool=dict(pool),
    )


def problem_of(record: StudyRecord) -> Problem:
    """What the strategy was told when the study began."""
    return config.typed(Problem, config.section(record.settings, "problem"), "problem")


def folder_of(record: StudyRecord, beside: Path | None = None) -> Path:
    """The folder that the study's paths are relative to; if it is gone, ``beside``, the database's."""
    folder = Path(config.typed(str, config.section(record.settings, "folder"), "folder"))
    return folder if beside is None or folder.is_dir() else beside


def given_of(record: StudyRecord) -> Given:
    """What the command line gave when the study began, or was last resumed."""
    return config.typed(Given, config.section(record.settings, "given"), "given")


def strategy_of(settings: StudySettings, problem: Problem) -> Strategy[Any]:
    """A fresh strategy.

    Raises:
        ConfigError: the strategy cannot work on this problem.
    """
    kind: Any = plugins.strategy(settings.strategy.name)
    try:
        made: Strategy[Any] = wrapped(kind(settings.strategy.settings, problem), settings.evaluation, problem)
    except StrategyError as error:
        raise ConfigError(f"strategy {settings.strategy.name!r}: {error}") from error
    return made


def versions(settings: StudySettings) -> dict[str, str]:
    """Versions of whatever may change a result: interpreter, platform, libraries, the plugins' distributions."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    chosen: list[tuple[plugins.Group, str]] = [("strategies", one.name) for one in config.choices(settings.strategy)]
    chosen += [("fitness", one.name) for one in config.choices(settings.fitness)]
    names = [*_LIBRARIES, *(plugins.distribution(group, name) for group, name in chosen)]
    names += [name for one in config.choices(settings.strategy) for name in plugins.strategy(one.name).libraries]
    for name in dict.fromkeys(filter(None, names)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def compare(old: StudyRecord, new: StudyRecord) -> tuple[config.Difference, ...]:
    """Everything that is not as it was: settings, problem, data, content of the pool, versions."""
    then, now = ({name: text for name, text in one.settings.items() if name not in _NOT_COMPARED} for one in (old, new))
    found = list(config.differences(then, now))
    for what, before, after in (("pool content", old.pool, new.pool), ("version", old.versions, new.versions)):
        for name in dict.fromkeys((*before, *after)):
            a, b = before.get(name, "-"), after.get(name, "-")
            if a != b:
                found.append(config.Difference(f"{what} {name}", a, b, harmless=what == "version"))
    return tuple(found)


def refuse(differences: tuple[config.Difference, ...], allow_changed: bool) -> None:
    """Stop unless everything that changed is harmless and allowed.

    Raises:
        ResumeError: listing each change, old and new, and what to do.
    """
    fatal = [one for one in differences if not one.harmless]
    if not differences or (allow_changed and not fatal):
        return
    listed = "\n".join(f"  {one}{'' if one.harmless else '   (changes the search)'}" for one in differences)
    cure = (
        "put these back as they were, or begin a new study under another name"
        if fatal
        else "put them back as they were, or resume with --allow-changed: none of them changes the search itself, but "
        "other versions may compute other numbers"
    )
    raise ResumeError(f"the study is not as it was when it began:\n{listed}\n{cure}")


def with_budget(settings: StudySettings, given: Given) -> StudySettings:
    """The settings with what the command line gave."""
    if given.budget is None:
        return settings
    return replace(settings, budget=replace(settings.budget, evaluations=given.budget))
