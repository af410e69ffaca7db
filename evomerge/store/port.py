"""The Store port: a database of studies, and one opened study.

The contract, checked by `evomerge.testing.StoreContract` over every store:

* **A turn is whole or not there.** `StudyStore.save_turn` keeps results, newly asked candidates and population changes
  together. Turns become durable in order, each in one transaction with its neighbours (*group commit*): a turn is on
  disk at the latest ``commit_every`` seconds of evaluation after it was saved, and at once when the last commit is
  longer ago. What a crash may cost is therefore at most that much work, which is then done again, identically.
* **Writes are repeatable.** Every row has a natural key; writing it twice changes nothing. Saving *another* turn under
  a number that is taken, or leaving a gap, is a `StoreError`: it is a study that does not go on as it began.
* **One driver.** Writing needs a lease, renewed by a heartbeat. A lease whose owner is silent for ``lease_seconds``, or
  is known to be dead on this host, may be taken over; a driver that lost its lease can write nothing more.
* **Read your own writes.** What was saved but not yet committed is visible to the one who saved it, only to them.
* Values come back bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evomerge.candidate import Candidate, Evaluated, Recipe, Request, Split

Status = Literal["created", "running", "paused", "finished", "stopped"]
"""``stopped``: the strategy could go no further, or the study met an error; its last event says which."""

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What a study is: fixed when it is created, changed only by an explicit, recorded `StudyStore.amend`.

    ``config`` is the study file's text as it was read; ``settings`` its parsed, canonical form (JSON), section by
    section; ``versions`` the libraries it began with; ``pool`` the content digest of each pool member.
    """

    name: str
    config: str
    settings: Mapping[str, str]
    seed: int
    objective: str
    direction: str
    versions: Mapping[str, str] = field(default_factory=dict)
    pool: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who drives a study. Times are seconds since the epoch on the database's clock."""

    owner: str
    host: str
    pid: int
    since: float
    heartbeat: float
    expires: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of ``evomerge status``: counts are of the search split; ``best`` is the best committed value."""

    name: str
    status: Status
    created: float
    updated: float
    asked: int
    told: int
    failed: int
    best: float | None
    best_number: int | None
    final: int | None
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Change:
    """From this turn on, ``slot`` of the population holds candidate ``number`` (``None``: it is empty)."""

    slot: int
    number: int | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a search: first ``told``, then ``asked``. ``seq`` is dense from 0.

    ``leader`` is the best value so far and its candidate, from a strategy that knows better than single results do (see
    `evomerge.strategy.Strategy.leader`); it goes into the study's summary and not into its journal.
    """

    seq: int
    told: tuple[Evaluated, ...] = ()
    asked: tuple[Candidate, ...] = ()
    changes: tuple[Change, ...] = ()
    leader: tuple[float, int] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The strategy's state after turn ``seq``: its digest always, its exact text while it is recent."""

    seq: int
    digest: str
    state: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to know: failures, resumes, takeovers, changed settings."""

    at: float
    level: Level
    kind: str
    text: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that belongs to the study (an export, a Gram cache): kept by address and digest."""

    name: str
    kind: str
    address: str
    digest: str
    created: float


class StudyStore(ABC):
    """One opened study. Opened for writing it holds the lease until `release`; otherwise writing raises."""

    @property
    @abstractmethod
    def record(self) -> StudyRecord:
        """What the study is."""

    # --- writing (lease needed) -------------------------------------------------------------------------------

    @abstractmethod
    def save_turn(self, turn: Turn) -> None:
        """Keep a turn; see the module's docstring for when it is durable.

        Raises:
            LeaseError: another driver took the study over.
            StoreUnavailableError: the database stayed away through all retries.
        """

    @abstractmethod
    def save_scores(self, split: Split, evaluated: Sequence[Evaluated]) -> None:
        """Keep results on the selection or report split, or on the search split before their turn to be told."""

    @abstractmethod
    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a state; it is never durable before the turn it follows. Only the newest two keep their text."""

    @abstractmethod
    def add_event(self, level: Level, kind: str, text: str, number: int | None = None) -> None:
        """Append to the study's log."""

    @abstractmethod
    def add_artifact(self, artifact: Artifact) -> None:
        """Note an artifact; the same name replaces."""

    @abstractmethod
    def set_status(self, status: Status, final: int | None = None) -> None:
        """Set what the study is doing; ``final`` is the chosen candidate of a finished one."""

    @abstractmethod
    def amend(self, record: StudyRecord) -> None:
        """Replace config, settings or versions of the study after they were allowed to change (name and seed stay)."""

    @abstractmethod
    def flush(self) -> None:
        """Make everything saved so far durable now."""

    @abstractmethod
    def release(self) -> None:
        """Flush, give the lease back and close. Safe to call twice."""

    @abstractmethod
    def abandon(self) -> None:
        """Close as a killed driver would: what is not yet durable is lost, the lease is left to expire."""

    # --- reading ----------------------------------------------------------------------------------------------

    @abstractmethod
    def summary(self) -> Summary:
        """Status and counts."""

    @abstractmethod
    def turns(self, after: int = -1, items: bool = True) -> Iterator[Turn]:
        """The journal, turn by turn, from ``after + 1`` on. ``items=False`` leaves out rows and slopes (faster)."""

    @abstractmethod
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots in order; older ones without text."""

    @abstractmethod
    def candidates(self, numbers: Iterable[int]) -> tuple[Candidate, ...]:
        """The candidates with these numbers, in this order.

        Raises:
            StoreError: one of them does not exist.
        """

    @abstractmethod
    def digests(self, since: int = 0) -> Iterator[tuple[int, str, Request]]:
        """Number, recipe digest and request of every candidate from number ``since`` on, in order."""

    @abstractmethod
    def requests(self) -> dict[Request, int]:
        """How many candidates were asked with each request other than the plain one."""

    def items_asked(self, items: int) -> int:
        """How many evaluations of one item were asked on a search split of ``items``."""
        partial = ((request.size, times) for request, times in self.requests().items())
        return self.summary().asked * items - sum((items - size) * times for size, times in partial if size is not None)

    @abstractmethod
    def recipes(self, digests: Iterable[str]) -> dict[str, Recipe]:
        """The known ones among these recipes, by digest."""

    @abstractmethod
    def scores(self, split: Split, numbers: Iterable[int] | None = None, items: bool = True) -> Iterator[Evaluated]:
        """Results on a split, by candidate number; all of them when ``numbers`` is None."""

    @abstractmethod
    def changes(self) -> Iterator[tuple[int, Change]]:
        """Every population change with its turn: who was in the archive when."""

    @abstractmethod
    def events(self, limit: int | None = None) -> tuple[Event, ...]:
        """The log, oldest first; with ``limit`` only the newest so many."""

    @abstractmethod
    def artifacts(self) -> tuple[Artifact, ...]:
        """All artifacts by name."""


class Store(ABC):
    """A database of studies."""

    @abstractmethod
    def create(self, record: StudyRecord) -> None:
        """Add a study.

        Raises:
            StudyExistsError: the name is taken.
        """

    @abstractmethod
    def studies(self) -> tuple[Summary, ...]:
        """All studies, by name."""

    @abstractmethod
    def open(self, name: str, *, write: bool = False, steal: bool = False) -> StudyStore:
        """Open a study; with ``write`` take its lease (``steal`` it from a living owner).

        Raises:
            StudyNotFoundError: no study of that name; the message names the nearest.
            LeaseError: another driver holds it: who, where, since when.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. Safe to call twice."""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
