"""Errors about study names, the same from every store."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from evomerge.errors import StudyExistsError, StudyNotFoundError

SHOWN = 10


def exists(name: str) -> StudyExistsError:
    """The error for a taken name."""
    return StudyExistsError(f"a study called {name!r} is there already; resume it, or choose another name")


def not_found(name: str, known: Iterable[str], where: str) -> StudyNotFoundError:
    """The error for an unknown name, with the nearest known one; ``where`` is the database's address."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    missing = f"there is no study called {name!r} in {where}"
    if near:
        return StudyNotFoundError(f"{missing}; did you mean {near[0]!r}?")
    if not names:
        return StudyNotFoundError(f"{missing}, nor any other; begin it, or name another database")
    listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return StudyNotFoundError(f"{missing}; there are: {listed}")
