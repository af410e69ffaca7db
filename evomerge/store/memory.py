"""The reference store: plain dicts in this process, found again by name. For tests and for trying things out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TypeVar

from evomerge import codec
from evomerge.candidate import WHOLE, Candidate, Evaluated, Recipe, Request, Score, Split
from evomerge.errors import StoreError
from evomerge.store import lease as leases
from evomerge.store import naming
from evomerge.store.buffered import BufferedStudy, without_losses
from evomerge.store.head import Head
from evomerge.store.port import (
    Artifact,
    Change,
    Event,
    Lease,
    Snapshot,
    Store,
    StudyRecord,
    StudyStore,
    Summary,
    Turn,
)

T = TypeVar("T")


def _copy(value: T) -> T:
    """A copy that shares nothing, by way of the exact text."""
    return codec.load(type(value), codec.dump(value))


@dataclass
class _Study:
    """Everything committed of one study."""

    record: StudyRecord
    created: float
    updated: float
    head: Head = field(default_factory=Head)
    lease: Lease | None = None
    birth: str = ""
    turns: list[Turn] = field(default_factory=list)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    scores: dict[tuple[Split, int], Evaluated] = field(default_factory=dict)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)


@dataclass
class _Database:
    """The studies behind one name, and the lock that makes a commit whole."""

    studies: dict[str, _Study] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


_databases: dict[str, _Database] = {}


@dataclass
class _Batch:
    """Commits to do, each a function of the study."""

    keep_losses: bool
    todo: list[Callable[[_Study], None]] = field(default_factory=list)

    def add_turn(self, turn: Turn) -> None:
        told = turn.told if self.keep_losses else tuple(without_losses(one) for one in turn.told)
        kept = _copy(replace(turn, told=told, leader=None))

        def commit(study: _Study) -> None:
            study.turns.append(kept)
            study.candidates |= {candidate.number: candidate for candidate in kept.asked}
            for one in kept.told:
                study.scores.setdefault(("search", one.candidate.number), one)

        self.todo.append(commit)

    def add_scores(self, split: Split, evaluated: Sequence[Evaluated]) -> None:
        kept = [_copy(one if self.keep_losses else without_losses(one)) for one in evaluated]

        def commit(study: _Study) -> None:
            for one in kept:
                study.scores.setdefault((split, one.candidate.number), one)

        self.todo.append(commit)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        def commit(study: _Study) -> None:
            study.snapshots.setdefault(snapshot.seq, snapshot)
            for seq in sorted(study.snapshots)[:-2]:
                study.snapshots[seq] = replace(study.snapshots[seq], state=None)

        self.todo.append(commit)

    def add_event(self, place: int, event: Event) -> None:
        self.todo.append(lambda study: study.events.insert(place, event))

    def add_artifact(self, artifact: Artifact) -> None:
        self.todo.append(lambda study: study.artifacts.update({artifact.name: artifact}))


class MemoryStudy(BufferedStudy[_Batch]):
    """One opened study of a `MemoryStore`."""

    def __init__(self, database: _Database, study: _Study, options: tuple[float, float, bool]) -> None:
        super().__init__(study.record, *options)
        self._database = database
        self._study = study

    def take(self, steal: bool) -> None:
        """Take the lease.

        Raises:
            LeaseError: another driver holds it.
        """
        me, now, study = leases.Owner.new(), time.time(), self._study
        took_over = None
        with self._database.lock:
            if study.lease is not None:
                took_over = leases.reason_to_take(study.lease, study.birth, now, steal)
                if took_over is None:
                    raise leases.refusal(study.record.name, study.lease, now)
                took_over = f"took the study over from {leases.describe(study.lease)}: {took_over}"
            study.lease = Lease(me.token, me.host, me.pid, now, now, now + self._lease_seconds)
            study.birth = me.birth
            self._token = me.token
            self._begin(replace(study.head))
        if took_over:
            self.add_event("warning", "takeover", took_over)

    # --- hooks of BufferedStudy -------------------------------------------------------------------------------

    def _new_batch(self) -> _Batch:
        return _Batch(self._keep_losses)

    def _commit(self, batch: _Batch, head: Head, patient: bool) -> None:
        with self._database.lock:
            self._renew()
            for commit in batch.todo:
                commit(self._study)
            self._study.head = replace(head)
            self._study.updated = time.time()

    def _renew(self) -> None:
        with self._database.lock:
            lease, now = self._study.lease, time.time()
            if lease is None or lease.owner != self._token:
                raise leases.lost(self._record.name, lease)
            self._study.lease = replace(lease, heartbeat=now, expires=now + self._lease_seconds)

    def _give_back(self) -> None:
        with self._database.lock:
            if self._study.lease is not None and self._study.lease.owner == self._token:
                self._study.lease = None

    def _amend(self, record: StudyRecord) -> None:
        with self._database.lock:
            self._renew()
            self._study.record = deepcopy(record)

    # --- reading ----------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Status and counts."""
        self.flush()
        return _summary(self._study)

    def turns(self, after: int = -1, items: bool = True) -> Iterator[Turn]:
        """The journal, turn by turn."""
        self.flush()
        for turn in self._study.turns[after + 1 :]:
            yield turn if items else replace(turn, told=tuple(_without_items(one) for one in turn.told))

    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots in order."""
        self.flush()
        return tuple(self._study.snapshots[seq] for seq in sorted(self._study.snapshots))

    def candidates(self, numbers: Iterable[int]) -> tuple[Candidate, ...]:
        """The candidates with these numbers, in this order."""
        self.flush()
        try:
            return tuple(self._study.candidates[number] for number in numbers)
        except KeyError as error:
            raise StoreError(f"study {self._record.name!r} has no candidate {error.args[0]}") from error

    def digests(self, since: int = 0) -> Iterator[tuple[int, str, Request]]:
        """Number, recipe digest and request, from a number on."""
        self.flush()
        for number in range(since, len(self._study.candidates)):
            one = self._study.candidates[number]
            yield number, one.recipe.digest, one.request

    def requests(self) -> dict[Request, int]:
        """How many candidates were asked with each request other than the plain one."""
        self.flush()
        return dict(Counter(one.request for one in self._study.candidates.values() if one.request != WHOLE))

    def recipes(self, digests: Iterable[str]) -> dict[str, Recipe]:
        """The known ones among these recipes."""
        self.flush()
        known = {candidate.recipe.digest: candidate.recipe for candidate in self._study.candidates.values()}
        return {digest: known[digest] for digest in digests if digest in known}

    def scores(self, split: Split, numbers: Iterable[int] | None = None, items: bool = True) -> Iterator[Evaluated]:
        """Results on a split, by candidate number."""
        self.flush()
        wanted = None if numbers is None else set(numbers)
        for kind, number in sorted(self._study.scores):
            if kind == split and (wanted is None or number in wanted):
                one = self._study.scores[kind, number]
                yield one if items else _without_items(one)

    def changes(self) -> Iterator[tuple[int, Change]]:
        """Every population change with its turn."""
        self.flush()
        for turn in tuple(self._study.turns):
            yield from ((turn.seq, change) for change in turn.changes)

    def events(self, limit: int | None = None) -> tuple[Event, ...]:
        """The log, oldest first."""
        self.flush()
        return tuple(self._study.events if limit is None else self._study.events[-limit:] if limit else ())

    def artifacts(self) -> tuple[Artifact, ...]:
        """All artifacts by name."""
        self.flush()
        return tuple(self._study.artifacts[name] for name in sorted(self._study.artifacts))


def _summary(study: _Study) -> Summary:
    head = study.head
    counts = (head.asked, head.told, head.failed, head.best, head.best_number, head.final)
    return Summary(study.record.name, head.status, study.created, study.updated, *counts, study.lease)


def _without_items(evaluated: Evaluated) -> Evaluated:
    if evaluated.score is None:
        return evaluated
    return replace(evaluated, score=Score(evaluated.score.objectives, notes=evaluated.score.notes))


class MemoryStore(Store):
    """Studies in this process. Stores of one ``name`` see the same studies until the process ends."""

    def __init__(
        self, name: str = "", *, commit_every: float = 0.1, lease_seconds: float = 60.0, keep_losses: bool = True
    ) -> None:
        self._name = name
        self._database = _databases.setdefault(name, _Database())
        self._options = (commit_every, lease_seconds, keep_losses)
        self._opened: list[MemoryStudy] = []

    def create(self, record: StudyRecord) -> None:
        """Add a study."""
        with self._database.lock:
            if record.name in self._database.studies:
                raise naming.exists(record.name)
            now = time.time()
            self._database.studies[record.name] = _Study(deepcopy(record), now, now)

    def studies(self) -> tuple[Summary, ...]:
        """All studies, by name."""
        with self._database.lock:
            return tuple(_summary(study) for _, study in sorted(self._database.studies.items()))

    def open(self, name: str, *, write: bool = False, steal: bool = False) -> StudyStore:
        """Open a study; with ``write`` take its lease."""
        study = self._database.studies.get(name)
        if study is None:
            raise naming.not_found(name, self._database.studies, f"memory://{self._name}")
        opened = MemoryStudy(self._database, study, self._options)
        if write:
            opened.take(steal)
            self._opened.append(opened)
        return opened

    def close(self) -> None:
        """Release what was opened for writing. Safe to call twice."""
        while self._opened:
            self._opened.pop().release()
