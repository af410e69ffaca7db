"""Models with one vocabulary: the rows of embeddings and heads, which stand for tokens, in another order.

A model's own row is used for every token that it has. A token that it lacks takes the base's row, or else the only
holder's, or else the mean of all who have it. Rows that stand for no token (padding), or for one that no model has, are
the mean of the model's other rows, so that they are never likelier than those. Single tokens may have their own rules.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.kinds import is_embeddings, is_head
from evomerge.merge.once import Once
from evomerge.merge.source import CHUNK, Source, View, computed, read_json
from evomerge.merge.tensorfile import Array, Floats, chunks
from evomerge.merge.tokens import Tokens

Rows = NDArray[np.int64]

ABSENT = -1
"""Instead of a row's number: there is none."""

_NUMBERS = re.compile(r".+_token_ids?")
"""Keys of a config that hold numbers of tokens, such as ``eos_token_id``."""

_LONG = 4096
"""An axis as long as a vocabulary of so many tokens is no chance."""

_GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Chosen:
    """The row of a token with its own rule: of a source as it is (``None``: zeros), for all models if ``force``."""

    source: str | None
    row: int
    force: bool


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The vocabulary that all sources get.

    Attributes:
        tokens: token to number.
        size: number of rows, with padding.
        sources: the models as they are, by name.
        rows: for each of them which of its rows stands for each number, or `ABSENT`; (size,).
        base: whose rows stand in for what others lack.
        files: what changes in a folder of companions, by the source whose folder it is.
        chosen: rows of tokens that have their own rules, by number.
    """

    tokens: Tokens
    size: int
    sources: Mapping[str, Source]
    rows: Mapping[str, Rows]
    base: str | None
    files: Mapping[str, Mapping[str, bytes | None]]
    chosen: Mapping[int, Chosen] = field(default_factory=dict)

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """Whether any model, or a rule, has a row for each number."""
        held: NDArray[np.bool_] = np.any([rows != ABSENT for rows in self.rows.values()], axis=0)
        held[list(self.chosen)] = True
        return held

    @cached_property
    def donors(self) -> NDArray[np.bool_]:
        """Whose rows a model that lacks one takes, as their mean: sources x size."""
        present = np.array([rows != ABSENT for rows in self.rows.values()])
        if self.base is not None:
            at = list(self.rows).index(self.base)
            present[np.arange(len(present)) != at] &= ~present[at]
        return present


class Aligned(View):
    """A source under a pool's vocabulary; float32 where a tensor's rows change."""

    def __init__(self, name: str, vocabulary: Vocabulary) -> None:
        origin = vocabulary.sources[name]
        self._own = vocabulary.rows[name]
        self.vocabulary = vocabulary
        self._chosen = {
            number: one for number, one in vocabulary.chosen.items() if one.force or self._own[number] == ABSENT
        }
        lacks = bool(self._chosen or (self._own == ABSENT).any())
        others = [source for other, source in vocabulary.sources.items() if lacks and other != name]
        super().__init__(f"vocabulary {self._said(name, lacks)}", [origin, *others])
        self.files = origin.files
        self._origin = origin
        self._rows = rows_of(origin) or 0
        ordered = len(self._own) == self._rows and not np.any(self._own != np.arange(self._rows))
        self._same = ordered and not self._chosen
        self._tensors = () if self._same else tuple(tensors_of(origin))
        self.entries = {
            key: computed(entry, (vocabulary.size, *entry.shape[1:])) if key in self._tensors else entry
            for key, entry in origin.entries.items()
        }
        self._name = name
        self._means = Once()
        self.notes = (*origin.notes, *self._told())

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """The origin's, or float32 rows in the new order."""
        if name not in self._tensors:
            return self._origin.stored(name, start, stop)
        stop = self.entries[name].size if stop is None else stop
        columns = math.prod(self.entries[name].shape[1:])
        if start >= stop:
            return np.empty(0, dtype=np.float32)
        first, last = start // columns, -(-stop // columns)
        values = self._matrix(name, first, last)
        return values.reshape(-1)[start - first * columns : stop - first * columns]

    def export_dtype(self, name: str) -> str:
        """The origin's."""
        return self._origin.export_dtype(name)

    def _fingerprint(self, name: str) -> str:
        """Of the tensors that it depends on: nothing is computed for it."""
        if name not in self._tensors:
            return self._origin.fingerprint(name)
        return self._named(origin.fingerprint(name) for origin in self.origins)

    def config(self) -> dict[str, Any]:
        """The origin's, with the new number of rows, and special tokens under their new numbers."""
        config = copy.deepcopy(self._origin.config())
        tables = [config, *(one for one in [config.get("text_config")] if isinstance(one, dict))]
        for table in tables:
            if "vocab_size" in table:
                table["vocab_size"] = self.vocabulary.size
            self._renumber(table)
        return config

    def overlay(self) -> Mapping[str, bytes | None]:
        """The vocabulary's tokenizer."""
        changed = {**self._origin.overlay(), **self.vocabulary.files.get(self._name, {})}
        path = self._origin.folder / _GENERATION
        if path.is_file():
            before = read_json(path)
            after = self._renumber(copy.deepcopy(before))
            if after != before:
                changed[_GENERATION] = (json.dumps(after, indent=2) + "\n").encode()
        return changed

    def _renumber(self, table: dict[str, Any]) -> dict[str, Any]:
        """The numbers of special tokens as they are now; a key of tokens that are all gone is gone, too."""
        for key in [key for key in table if _NUMBERS.fullmatch(key)]:
            numbers = table[key] if isinstance(table[key], list) else [table[key]]
            if not numbers or not all(type(number) is int for number in numbers):
                continue
            now = [self._now[number] for number in numbers if number in self._now]
            if not now:
                del table[key]
            else:
                table[key] = now if isinstance(table[key], list) else now[0]
        return table

    @cached_property
    def _now(self) -> dict[int, int]:
        """The origin's number of a token to the new one."""
        return {int(old): new for new, old in enumerate(self._own) if old != ABSENT}

    def _told(self) -> Iterator[str]:
        known = len(set(self._own[self._own != ABSENT].tolist()))
        lacks = int((self._own[list(self.vocabulary.tokens.values())] == ABSENT).sum())
        if lacks:
            yield f"lacks {lacks:,} of the pool's {len(self.vocabulary.tokens):,} tokens, whose rows are filled in"
        if known < self._rows:
            yield f"{self._rows - known:,} of its {self._rows:,} rows of embeddings stand for no token of the pool"

    def _said(self, name: str, lacks: bool) -> str:
        """Tells apart what is made of which rows."""
        known = (name, self.vocabulary.base, *sorted(self._chosen.items()))
        total = hashlib.blake2b(repr(known).encode(), digest_size=16)
        for source, rows in self.vocabulary.rows.items():
            if lacks or source == name:
                total.update(rows.astype("<i8").tobytes())
        return total.hexdigest()

    def _matrix(self, name: str, first: int, last: int) -> Floats:
        """Rows ``first:last``."""
        out = np.empty((last - first, math.prod(self.entries[name].shape[1:])), dtype=np.float32)
        held = self.vocabulary.held[first:last]
        out[held] = self._held(name, first + np.flatnonzero(held))
        if not held.all():
            out[~held] = self._means.get(name, lambda: self._mean(name))
        return out

    def _held(self, name: str, numbers: Rows) -> Floats:
        """Rows of tokens that somebody, or a rule, has."""
        out = np.zeros((len(numbers), math.prod(self.entries[name].shape[1:])), dtype=np.float32)
        ruled = np.isin(numbers, list(self._chosen))
        out[~ruled] = self._usual(name, numbers[~ruled])
        for at in np.flatnonzero(ruled):
            chosen = self._chosen[int(numbers[at])]
            if chosen.source is not None:
                out[at] = _gather(self.vocabulary.sources[chosen.source], name, np.array([chosen.row]))[0]
        return out

    def _usual(self, name: str, numbers: Rows) -> Floats:
        """Rows of tokens that somebody has: its own, or the mean of the donors', added up in their order."""
        out = np.zeros((len(numbers), math.prod(self.entries[name].shape[1:])), dtype=np.float32)
        has = self._own[numbers] != ABSENT
        lacking = numbers[~has]
        if len(lacking):
            total, count = np.zeros((len(lacking), out.shape[1]), dtype=np.float32), np.zeros((len(lacking), 1))
            for (source, rows), donors in zip(self.vocabulary.rows.items(), self.vocabulary.donors, strict=True):
                gives = donors[lacking]
                total[gives] += _gather(self.vocabulary.sources[source], name, rows[lacking[gives]])
                count += gives[:, None]
            out[~has] = total / count.astype(np.float32)
        out[has] = _gather(self._origin, name, self._own[numbers[has]])
        return out

    def _mean(self, name: str) -> Floats:
        """The mean of all rows that stand for a token, summed in float64 in fixed blocks of rows."""
        columns = math.prod(self.entries[name].shape[1:])
        numbers = np.flatnonzero(self.vocabulary.held)
        total = np.zeros(columns)
        for first, last in chunks(len(numbers), max(1, CHUNK // max(1, columns))):
            total += self._held(name, numbers[first:last]).sum(axis=0, dtype=np.float64)
        return (total / max(1, len(numbers))).astype(np.float32)


def _gather(source: Source, name: str, rows: Rows) -> Floats:
    """Some rows of a source's tensor, float32, read run by run."""
    columns = math.prod(source.entries[name].shape[1:])
    out = np.empty((len(rows), columns), dtype=np.float32)
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for start, stop in pairwise(cuts):
        if start < stop:
            first = int(rows[start]) * columns
            out[start:stop] = source.floats(name, first, first + (stop - start) * columns).reshape(-1, columns)
    return out


def rows_of(source: Source) -> int | None:
    """How many rows its embeddings have; ``None`` if it has none."""
    found = {source.entries[name].shape[0] for name in source.entries if is_embeddings(name)}
    return max(found, default=None)


def tensors_of(source: Source) -> list[str]:
    """Names of the tensors whose first axis is the vocabulary: embeddings and heads.

    Raises:
        PoolError: another tensor has an axis of that length.
    """
    rows = rows_of(source)
    found = []
    for name, entry in source.entries.items():
        if entry.shape[:1] == (rows,) and (is_embeddings(name) or is_head(name)):
            found.append(name)
        elif rows in entry.shape and rows is not None and rows >= _LONG:
            raise PoolError(
                f"{source.path}: tensor {name!r} {list(entry.shape)} has an axis as long as the vocabulary, but is not "
                "known as embeddings or head; leave pool.vocabulary at same, and take out the models that differ"
            )
    return found
