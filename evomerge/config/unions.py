"""Unions of settings classes that are told apart by their ``kind``: only the errors of the one that was meant count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from evomerge.config.annotations import step_into


def kinds(member: Any) -> tuple[str, ...]:
    """What ``kind`` may be in this settings class; nothing if it has none."""
    return get_args(get_type_hints(member).get("kind")) if is_dataclass(member) else ()


def meant(hint: Any, content: Any) -> Any | None:
    """The member of a union of settings classes that ``content`` is of by its ``kind``; the first without one."""
    members = [member for member in get_args(hint) if kinds(member)]
    if len(members) < 2 or not isinstance(content, dict):
        return None
    if "kind" not in content:
        return next((one for one in members if _default(one) is not MISSING), members[0])
    return next((one for one in members if content["kind"] in kinds(one)), None)


def relevant(errors: Sequence[Any], hint: Any, content: Any) -> list[Any]:
    """The errors of pydantic, without those of members of a union that were not meant.

    Where ``kind`` is none of any member's, one error is left, which says so.
    """
    kept: list[Any] = []
    told: set[tuple[int | str, ...]] = set()
    for error in errors:
        at, here = hint, content
        steps: list[int | str] = []
        for step in error["loc"]:
            one = meant(at, here)
            union = len([member for member in get_args(at) if kinds(member)]) > 1
            if union and isinstance(here, dict) and one is None:
                if tuple(steps) not in told:
                    told.add(tuple(steps))
                    kept.append({**error, "type": "literal_error", "loc": (*steps, "kind")})
                break
            if one is not None and step in {member.__name__ for member in get_args(at) if isinstance(member, type)}:
                if step != one.__name__:
                    break
                at = one
                continue
            steps.append(step)
            at = step_into(at, step)
            here = here.get(step) if isinstance(here, dict) else here[step] if _has(here, step) else None
        else:
            kept.append({**error, "loc": tuple(steps)})
    return kept


def _has(content: Any, step: int | str) -> bool:
    return isinstance(content, list) and isinstance(step, int) and step < len(content)


def _default(member: Any) -> Any:
    return next(one.default for one in fields(member) if one.name == "kind")
