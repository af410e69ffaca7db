"""Reading from SQL: pages of rows into candidates, results and turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, func, select

from evomerge import codec
from evomerge.candidate import WHOLE, Array, Candidate, Evaluated, Recipe, Request, Split
from evomerge.store import rows
from evomerge.store.port import Change, Turn
from evomerge.store.schema import candidates, journal, parents, populations, requests, scores, slopes

T = TypeVar("T")

PAGE = 500
"""Rows (turns, results) that are read at once."""

_SLIM = [column for column in scores.columns if column.name not in ("items", "losses")]


def pages(values: Iterable[T]) -> list[list[T]]:
    """The values in lists of at most `PAGE`."""
    every = list(values)
    return [every[start : start + PAGE] for start in range(0, len(every), PAGE)]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one study over a connection, within its transaction. ``items``: with numbers per item."""

    connection: Connection
    study: int
    items: bool = True

    def candidates(self, numbers: Iterable[int]) -> dict[int, Candidate]:
        """The known ones among these candidates, by number."""
        found: dict[int, Candidate] = {}
        for page in pages(numbers):
            edges, asked = self._parents(page), self._requests(page)
            columns = (candidates.c.number, candidates.c.generation, candidates.c.origin, candidates.c.recipe)
            query = select(*columns).where(candidates.c.study == self.study, candidates.c.number.in_(page))
            for row in self.connection.execute(query):
                found[row.number] = rows.to_candidate(row, edges.get(row.number, ()), asked.get(row.number))
        return found

    def _parents(self, numbers: list[int]) -> dict[int, list[int]]:
        query = select(parents.c.child, parents.c.parent)
        query = query.where(parents.c.study == self.study, parents.c.child.in_(numbers))
        found: dict[int, list[int]] = defaultdict(list)
        for child, parent in self.connection.execute(query.order_by(parents.c.child, parents.c.place)):
            found[child].append(parent)
        return found

    def _requests(self, numbers: list[int]) -> dict[int, str]:
        query = select(requests.c.number, requests.c.request)
        query = query.where(requests.c.study == self.study, requests.c.number.in_(numbers))
        return {row.number: row.request for row in self.connection.execute(query)}

    def _slopes(self, numbers: list[int]) -> dict[int, Array | None]:
        query = select(slopes.c.number, slopes.c.form, slopes.c.packed)
        query = query.where(slopes.c.study == self.study, slopes.c.number.in_(numbers))
        return {number: rows.unpack(form, packed) for number, form, packed in self.connection.execute(query)}

    def digests(self, first: int, last: int) -> list[tuple[int, str, Request]]:
        """Number, recipe digest and request of candidates ``first`` to ``last``."""
        query = select(candidates.c.number, candidates.c.digest).order_by(candidates.c.number)
        query = query.where(candidates.c.study == self.study, candidates.c.number.between(first, last))
        asked = self._requests(list(range(first, last + 1)))
        return [
            (number, digest, codec.load(Request, asked[number]) if number in asked else WHOLE)
            for number, digest in self.connection.execute(query)
        ]

    def request_counts(self) -> dict[Request, int]:
        """How often each request other than the plain one was asked."""
        query = select(requests.c.request, func.count()).where(requests.c.study == self.study)
        return {codec.load(Request, text): n for text, n in self.connection.execute(query.group_by(requests.c.request))}

    def recipes(self, digests: Iterable[str]) -> dict[str, Recipe]:
        """The known ones among these recipes, by digest."""
        found: dict[str, Recipe] = {}
        for page in pages(digests):
            query = select(candidates.c.digest, candidates.c.recipe)
            query = query.where(candidates.c.study == self.study, candidates.c.digest.in_(page))
            for digest, text in self.connection.execute(query):
                if digest not in found:
                    found[digest] = codec.load(Recipe, text)
        return found

    def scores(self, split: Split, numbers: Iterable[int], known: dict[int, Candidate]) -> dict[int, Evaluated]:
        """The results of these candidates on a split, by number; ``known`` candidates need not be read again."""
        found: list[Any] = []
        for page in pages(numbers):
            found += self.connection.execute(self._scores(split).where(scores.c.number.in_(page))).all()
        return self._evaluated(split, found, known)

    def score_page(self, split: Split, after: int) -> dict[int, Evaluated]:
        """The next page of results on a split with numbers above ``after``, in order of number."""
        query = self._scores(split).where(scores.c.number > after).order_by(scores.c.number).limit(PAGE)
        return self._evaluated(split, self.connection.execute(query).all(), {})

    def _scores(self, split: Split) -> Select[Any]:
        query = select(*(scores.columns if self.items else _SLIM))
        return query.where(scores.c.study == self.study, scores.c.split == split)

    def _evaluated(self, split: Split, found: Sequence[Any], known: dict[int, Candidate]) -> dict[int, Evaluated]:
        unknown = [row.number for row in found if row.number not in known]
        candidate = known | self.candidates(unknown) if unknown else known
        wanted = found if self.items and split == "search" else ()
        sloping = [row.number for row in wanted if candidate[row.number].request.slopes]
        steep = {number: one for page in pages(sloping) for number, one in self._slopes(page).items()}
        return {row.number: rows.to_evaluated(candidate[row.number], row, steep.get(row.number)) for row in found}

    def turns(self, first: int, last: int, waiting: dict[int, Candidate]) -> list[Turn]:
        """Turns ``first`` to ``last``. ``waiting`` holds candidates asked and not yet told, and is kept up to date."""
        query = select(journal.c.seq, journal.c.told, journal.c.asked)
        query = query.where(journal.c.study == self.study, journal.c.seq.between(first, last)).order_by(journal.c.seq)
        entries = [(seq, _numbers(told), _numbers(asked)) for seq, told, asked in self.connection.execute(query)]
        waiting |= self.candidates(number for _, _, asked in entries for number in asked)
        told_numbers = [number for _, told, _ in entries for number in told]
        results = self.scores("search", told_numbers, waiting)
        changes = self.changes(first, last)
        turns = []
        for seq, told, asked in entries:
            new = tuple(waiting[number] for number in asked)
            turns.append(Turn(seq, tuple(results[number] for number in told), new, tuple(changes.get(seq, ()))))
        for number in told_numbers:
            waiting.pop(number, None)
        return turns

    def changes(self, first: int, last: int) -> dict[int, list[Change]]:
        """Population changes of turns ``first`` to ``last``, in order."""
        query = select(populations.c.turn, populations.c.slot, populations.c.number)
        query = query.where(populations.c.study == self.study, populations.c.turn.between(first, last))
        found: dict[int, list[Change]] = defaultdict(list)
        for turn, slot, number in self.connection.execute(query.order_by(populations.c.turn, populations.c.place)):
            found[turn].append(Change(slot, number))
        return found


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]
