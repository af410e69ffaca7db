"""Between the search's values and database rows, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evomerge import codec
from evomerge.candidate import WHOLE, Array, Candidate, Cost, Evaluated, Recipe, Request, Score, Split
from evomerge.errors import CodecError
from evomerge.store.head import main_value
from evomerge.store.port import Change, Lease, StudyRecord, Summary

Row = tuple[Any, ...]
_json = json.JSONEncoder(separators=(",", ":")).encode


def integer(value: Any) -> int:
    """The value, if it is an int and not merely like one."""
    if type(value) is not int:
        raise CodecError(f"expected int, got {type(value).__name__}: {value!r:.80}")
    return value


def plain(text: str) -> str:
    """The text, if any database can keep it as it is."""
    if type(text) is not str or "\0" in text or not (text.isascii() or _encodable(text)):
        raise CodecError(f"expected text without NUL and lone surrogates, got {text!r:.80}")
    return text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def mapping(value: Mapping[str, str]) -> str:
    """JSON of a text mapping, in its own order."""
    return _json(dict(value))


# --- studies --------------------------------------------------------------------------------------------------


def record_values(record: StudyRecord) -> dict[str, Any]:
    """The columns of ``studies`` that say what a study is."""
    return {
        "name": plain(record.name),
        "config": plain(record.config),
        "settings": mapping(record.settings),
        "seed": str(integer(record.seed)),
        "objective": plain(record.objective),
        "direction": plain(record.direction),
        "versions": mapping(record.versions),
        "pool": mapping(record.pool),
    }


def to_record(row: Any) -> StudyRecord:
    """What the study of a row is."""
    settings, versions, pool = json.loads(row.settings), json.loads(row.versions), json.loads(row.pool)
    return StudyRecord(row.name, row.config, settings, int(row.seed), row.objective, row.direction, versions, pool)


def to_lease(row: Any) -> Lease:
    """The lease of a row of ``leases``."""
    return Lease(row.owner, row.host, row.pid, row.since, row.heartbeat, row.expires)


def to_summary(row: Any) -> Summary:
    """The summary of a study's row joined with its lease."""
    lease = None if row.owner is None else to_lease(row)
    counts = (row.asked, row.told, row.failed, row.best, row.best_number, row.final)
    return Summary(row.name, row.status, row.created, row.updated, *counts, lease)


# --- arrays ---------------------------------------------------------------------------------------------------


def pack(values: Array | None) -> tuple[str | None, bytes | None]:
    """Form (dtype and shape) and bytes of an array: little endian, booleans eight to a byte."""
    if values is None:
        return None, None
    dtype = values.dtype
    if dtype.kind == "b":
        packed = np.packbits(values, axis=None)
    elif dtype.kind in "iuf":
        packed = values.astype(dtype.newbyteorder("<"), copy=False)
        dtype = packed.dtype
    else:
        raise CodecError(f"expected an array of numbers, got dtype {dtype}")
    return " ".join([dtype.str, *map(str, values.shape)]), packed.tobytes()


def unpack(form: str | None, packed: bytes | None) -> Array | None:
    """The array that was packed; it is read-only."""
    if form is None or packed is None:
        return None
    kind, *sizes = form.split(" ")
    shape = tuple(map(int, sizes))
    if kind == "|b1":
        count = int(np.prod(shape, dtype=np.int64))
        array = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).view(np.bool_).reshape(shape)
        array.flags.writeable = False
        return array
    return np.frombuffer(packed, np.dtype(kind)).reshape(shape)


# --- candidates and results -----------------------------------------------------------------------------------


def candidate_row(study: int, candidate: Candidate) -> Row:
    """One row of ``candidates``."""
    recipe, number, generation = candidate.recipe, integer(candidate.number), integer(candidate.generation)
    return study, number, recipe.digest, generation, plain(candidate.origin), recipe.text


def request_rows(study: int, asked: Sequence[Candidate]) -> list[Row]:
    """The rows of ``requests``: of those that are asked otherwise than usual."""
    return [(study, one.number, codec.dump(one.request)) for one in asked if one.request != WHOLE]


def slope_rows(study: int, told: Sequence[Evaluated]) -> list[Row]:
    """The rows of ``slopes``."""
    found = [(one.candidate.number, one.score.slopes) for one in told if one.score is not None]
    return [(study, number, *pack(slopes)) for number, slopes in found if slopes is not None]


def parent_rows(study: int, candidate: Candidate) -> list[Row]:
    """The rows of ``parents``."""
    return [(study, candidate.number, place, integer(parent)) for place, parent in enumerate(candidate.parents)]


def to_candidate(row: Any, parents: Sequence[int], request: str | None = None) -> Candidate:
    """The candidate of a row, its parents and the text of its request, if it has one."""
    asked = WHOLE if request is None else codec.load(Request, request)
    return Candidate(row.number, codec.load(Recipe, row.recipe), tuple(parents), row.generation, row.origin, asked)


def change_row(study: int, turn: int, place: int, change: Change) -> Row:
    """One row of ``populations``."""
    return study, turn, place, integer(change.slot), None if change.number is None else integer(change.number)


def score_row(study: int, split: Split, evaluated: Evaluated, objective: str, losses: bool) -> Row:
    """One row of ``scores``."""
    score, cost, number = evaluated.score, evaluated.cost, integer(evaluated.candidate.number)
    failure = None if evaluated.failure is None else _json(evaluated.failure)
    paid = (float(cost.seconds), integer(cost.attempts), plain(cost.worker))
    if score is None:
        return study, split, number, None, None, failure, None, *paid, None, None, None, None
    for name, value in score.objectives:
        if type(value) is not float:
            raise CodecError(f"expected float for objective {name!r}, got {type(value).__name__}: {value!r:.80}")
    items_form, items = pack(score.items)
    losses_form, packed = pack(score.losses) if losses else (None, None)
    notes = _json(score.notes) if score.notes else None
    said = (main_value(evaluated, objective), _json(score.objectives), failure, notes)
    return study, split, number, *said, *paid, items_form, losses_form, items, packed


def to_evaluated(candidate: Candidate, row: Any, slopes: Array | None = None) -> Evaluated:
    """The result of a row of ``scores`` (which may lack the packed columns), with its slopes, if it has any."""
    score = None
    if row.objectives is not None:
        objectives = tuple((name, value) for name, value in json.loads(row.objectives))
        notes = tuple((key, text) for key, text in json.loads(row.notes)) if row.notes else ()
        items, losses = getattr(row, "items", None), getattr(row, "losses", None)
        score = Score(objectives, unpack(row.items_form, items), unpack(row.losses_form, losses), notes, slopes)
    failure = None if row.failure is None else json.loads(row.failure)
    return Evaluated(candidate, score, failure, Cost(row.seconds, row.attempts, row.worker))
