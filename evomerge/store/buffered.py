"""The writing half that every store shares: checks, group commit, and keeping the lease alive."""

from __future__ import annotations

import math
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from evomerge import codec
from evomerge.candidate import Cost, Evaluated, Split
from evomerge.errors import CodecError, LeaseError, StoreError
from evomerge.store.head import Head
from evomerge.store.heartbeat import Heartbeat
from evomerge.store.port import Artifact, Event, Level, Snapshot, Status, StudyRecord, StudyStore, Turn


class Batch(Protocol):
    """What was saved and is not durable yet. Each method takes all of its argument or raises and takes nothing."""

    def add_turn(self, turn: Turn) -> None:
        """Take a turn."""

    def add_scores(self, split: Split, evaluated: Sequence[Evaluated]) -> None:
        """Take results."""

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Take a snapshot."""

    def add_event(self, place: int, event: Event) -> None:
        """Take the event with number ``place``."""

    def add_artifact(self, artifact: Artifact) -> None:
        """Take an artifact."""


B = TypeVar("B", bound=Batch)


class BufferedStudy(StudyStore, Generic[B]):
    """A study whose writes wait in a batch. A store adds the five hooks below, and reading.

    Everything that touches the batch holds one lock, because the heartbeat commits too: what waits longer than
    ``commit_every`` while the driver is busy with a long evaluation. Commits run in a thread of their own, where no
    Ctrl-C can tear a transaction apart and leave its locks behind.
    """

    def __init__(self, record: StudyRecord, commit_every: float, lease_seconds: float, keep_losses: bool) -> None:
        self._record = record
        self._commit_every = commit_every
        self._lease_seconds = lease_seconds
        self._keep_losses = keep_losses
        self._lock = threading.RLock()
        self._barred: LeaseError | None = LeaseError(
            f"study {record.name!r} is open for reading only; open it with write=True to change it"
        )
        self._head = Head()
        self._dirty_since: float | None = None
        self._committed = self._renewed = -math.inf
        self._heartbeat: Heartbeat | None = None
        self._torn = False  # an interrupt (Ctrl-C) came in the middle of a save: what waits is not to be committed

    # --- hooks ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _new_batch(self) -> B:
        """An empty batch."""

    @abstractmethod
    def _commit(self, batch: B, head: Head, patient: bool) -> None:
        """Make both durable in one transaction that also renews the lease, or raise (at once if not ``patient``)."""

    @abstractmethod
    def _renew(self) -> None:
        """Renew the lease, or raise `LeaseError`."""

    @abstractmethod
    def _give_back(self) -> None:
        """Give the lease back if it is still held."""

    @abstractmethod
    def _amend(self, record: StudyRecord) -> None:
        """Replace the record in a transaction that also renews the lease."""

    # --- life -------------------------------------------------------------------------------------------------

    def _begin(self, head: Head) -> None:
        """Start writing, with the lease just taken."""
        self._barred = None
        self._head = head
        self._batch = self._new_batch()
        self._renewed = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"evomerge writer of {self._record.name}")
        tick = min(self._commit_every or math.inf, self._lease_seconds / 3)
        self._heartbeat = Heartbeat(self._tend, max(tick, 0.005), self._record.name)

    def _tend(self) -> None:
        """One beat: commit what has waited long enough, or else renew the lease when a third of it is over."""
        with self._lock:
            if self._barred is not None:
                return
            now = time.monotonic()
            try:
                if self._dirty_since is not None and now - self._dirty_since >= self._commit_every:
                    self._flush(patient=False)
                elif now - self._renewed >= self._lease_seconds / 3:
                    self._renew()
                    self._renewed = now
            except LeaseError as error:
                self._barred = error
            except StoreError:
                return  # the driver meets the same trouble at its next save, and reports it

    def _stop(self, reason: str) -> None:
        with self._lock:
            if self._barred is None:
                self._barred = LeaseError(f"study {self._record.name!r} {reason}; open it again to write")
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._writer.shutdown()

    def abandon(self) -> None:
        """Close as a killed driver would: what is not committed is gone, and the lease stays taken."""
        self._stop("was abandoned")

    def release(self) -> None:
        """Flush, give the lease back and close. Safe to call twice."""
        if self._barred is not None:
            self._stop("was released")
            return
        try:
            if not self._torn:
                self.flush()
            self._give_back()
        finally:
            self._stop("was released")

    # --- writing ----------------------------------------------------------------------------------------------

    @property
    def record(self) -> StudyRecord:
        """What the study is."""
        return self._record

    def save_turn(self, turn: Turn) -> None:
        """Keep a turn; a turn that is kept already must be the same."""
        with self._lock:
            self._need_lease()
            if turn.seq < self._head.turns:
                self._check_repeated(turn)
                return
            self._check_next(turn)
            self._torn = True
            try:
                self._batch.add_turn(turn)
            except CodecError:  # refused, and nothing taken
                self._torn = False
                raise
            self._head.count(turn, self._record.objective, self._record.direction)
            self._torn = False
            self._saved()

    def save_scores(self, split: Split, evaluated: Sequence[Evaluated]) -> None:
        """Keep results of candidates that were asked."""
        with self._lock:
            self._need_lease()
            self._check_asked(evaluated, f"a result on the {split} split is")
            self._batch.add_scores(split, evaluated)
            self._saved()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a state after its turn."""
        with self._lock:
            self._need_lease()
            if snapshot.seq >= self._head.turns:
                raise StoreError(f"snapshot {snapshot.seq} comes before its turn; save turn {self._head.turns} first")
            self._batch.add_snapshot(snapshot)
            self._saved()

    def add_event(self, level: Level, kind: str, text: str, number: int | None = None) -> None:
        """Append to the study's log."""
        with self._lock:
            self._need_lease()
            self._batch.add_event(self._head.events, Event(time.time(), level, kind, text, number))
            self._head.events += 1
            self._saved()

    def add_artifact(self, artifact: Artifact) -> None:
        """Note an artifact; the same name replaces."""
        with self._lock:
            self._need_lease()
            self._batch.add_artifact(artifact)
            self._saved()

    def set_status(self, status: Status, final: int | None = None) -> None:
        """Set what the study is doing, durable at once; a ``final`` candidate stays until another is named."""
        with self._lock:
            self._need_lease()
            self._head.status = status
            self._head.final = self._head.final if final is None else final
            self._saved()
            self.flush()

    def amend(self, record: StudyRecord) -> None:
        """Replace config, settings, versions or pool, durable at once."""
        for name in ("name", "seed", "objective", "direction"):
            if getattr(record, name) != getattr(self._record, name):
                raise StoreError(f"the {name} of study {self._record.name!r} cannot change; create another study")
        with self._lock:
            self._need_lease()
            self.flush()
            self._amend(record)
            self._record = record

    def flush(self) -> None:
        """Make everything saved so far durable now."""
        with self._lock:
            if self._barred is None and self._dirty_since is not None:
                self._flush()

    def _saved(self) -> None:
        """The rule of group commit: at once if the last commit is long ago, else together with what follows."""
        now = time.monotonic()
        if self._dirty_since is None:
            self._dirty_since = now
        if now - self._committed >= self._commit_every:
            self._flush()

    def _flush(self, patient: bool = True) -> None:
        """Commit the batch. After trouble it is still there; after losing the lease it is not, nor ever written."""
        self._need_whole()
        committing = self._writer.submit(self._commit, self._batch, self._head, patient)
        try:
            committing.result()
        except LeaseError as error:
            self._barred = error
            raise
        finally:
            wait([committing])  # when interrupted, too: nobody may touch the batch before
        self._batch = self._new_batch()
        self._dirty_since = None
        self._committed = self._renewed = time.monotonic()

    # --- checks -----------------------------------------------------------------------------------------------

    def _need_lease(self) -> None:
        if self._barred is not None:
            raise LeaseError(*self._barred.args)
        self._need_whole()

    def _need_whole(self) -> None:
        if self._torn:
            raise StoreError(f"saving to study {self._record.name!r} was interrupted half-way; open it again to go on")

    def _check_next(self, turn: Turn) -> None:
        if turn.seq != self._head.turns:
            raise StoreError(
                f"turn {turn.seq} leaves a gap; the next turn of {self._record.name!r} is {self._head.turns}"
            )
        for number, candidate in enumerate(turn.asked, self._head.asked):
            if candidate.number != number:
                raise StoreError(f"turn {turn.seq} asks candidate {candidate.number}, but the next number is {number}")
        self._check_asked(turn.told, f"turn {turn.seq} is told a result")

    def _check_asked(self, evaluated: Sequence[Evaluated], what: str) -> None:
        for one in evaluated:
            if one.candidate.number >= self._head.asked:
                raise StoreError(f"{what} of candidate {one.candidate.number}, which was never asked")

    def _check_repeated(self, turn: Turn) -> None:
        kept = next(self.turns(after=turn.seq - 1))
        if not codec.equal(_essence(kept, self._keep_losses), _essence(turn, self._keep_losses)):
            raise StoreError(
                f"turn {turn.seq} of study {self._record.name!r} is kept already, and differs; the study does not go "
                "on as it began (another plugin, pool or library version?)"
            )


def _essence(turn: Turn, losses: bool) -> Turn:
    """The turn without what may differ between two equal runs, or is not in the journal."""
    told = [replace(one, cost=Cost()) for one in turn.told]
    return replace(turn, told=tuple(told if losses else [without_losses(one) for one in told]), leader=None)


def without_losses(evaluated: Evaluated) -> Evaluated:
    """The result without its per-item losses."""
    if evaluated.score is None or evaluated.score.losses is None:
        return evaluated
    return replace(evaluated, score=replace(evaluated.score, losses=None))
