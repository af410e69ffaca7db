"""Replays a stored study through a fresh strategy and compares all that the strategy decided. Needs no pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evomerge import config
from evomerge.errors import ResumeError, VerificationError
from evomerge.replay import advance, population_changes, state_digest
from evomerge.settings import StudySettings
from evomerge.store.port import StudyRecord, StudyStore
from evomerge.strategy import Strategy
from evomerge.study import record as records


@dataclass(frozen=True)
class Proof:
    """What was compared and found equal, and which versions differ from those that the study was made with."""

    study: str
    strategy: str
    turns: int
    asked: int
    told: int
    changes: int
    snapshots: int
    final: int | None
    other_versions: dict[str, tuple[str, str]]


def verify(study: StudyStore) -> Proof:
    """Replay the journal from its first turn.

    Raises:
        VerificationError: at the first difference, saying where it is.
        ResumeError: the stored settings cannot be read by this version.
    """
    record = study.record
    settings = config.stored(record.settings)
    strategy = records.strategy_of(settings, records.problem_of(record))
    state: Any = strategy.start()
    digests = {snapshot.seq: snapshot.digest for snapshot in study.snapshots()}
    seq, changes, snapshots = -1, 0, 0
    for turn in study.turns():
        if turn.seq != seq + 1:
            raise VerificationError(f"turn {seq + 1} is missing from the journal; the next one there is {turn.seq}")
        seq, before = turn.seq, strategy.population(state)
        try:
            state = advance(strategy, state, turn)
        except ResumeError as error:
            raise VerificationError(f"first difference: {error}") from error
        expected = population_changes(before, strategy.population(state)) if turn.told else ()
        if expected != turn.changes:
            raise VerificationError(
                f"first difference: turn {seq}: the population changed by {_shown(turn.changes)} in the journal, but "
                f"the strategy makes it {_shown(expected)}"
            )
        changes += len(expected)
        if seq in digests:
            _same_state(state, digests[seq], seq)
            snapshots += 1
    if later := [at for at in digests if at > seq]:
        raise VerificationError(f"there is a snapshot of turn {later[0]}, but the journal ends with turn {seq}")
    return Proof(
        study=record.name,
        strategy=settings.strategy.name,
        turns=seq + 1,
        asked=state.asked,
        told=state.told,
        changes=changes,
        snapshots=snapshots,
        final=_same_final(study, settings, strategy, state),
        other_versions=_other_versions(record, settings),
    )


def _same_state(state: object, digest: str, seq: int) -> None:
    found = state_digest(state)[0]
    if found != digest:
        raise VerificationError(
            f"first difference: the strategy's state after turn {seq} has digest {found}, the snapshot says {digest}"
        )


def _same_final(study: StudyStore, settings: StudySettings, strategy: Strategy[Any], state: Any) -> int | None:
    """The final candidate, chosen again from the stored scores."""
    final = study.summary().final
    if final is None:
        return None
    finalists = strategy.finalists(state)[: settings.finalists]
    chosen = finalists[0] if finalists else None
    if settings.splits.selection:
        objective = records.problem_of(study.record).objectives[0]
        gains = {
            one.candidate.number: objective.gain(one.score[objective.name])
            for one in study.scores("selection", finalists, items=False)
            if one.score is not None
        }
        chosen = max(finalists, key=lambda number: gains.get(number, float("-inf")), default=None)
    if chosen != final:
        raise VerificationError(f"first difference: the final candidate is #{final}, but the scores choose #{chosen}")
    return final


def _other_versions(record: StudyRecord, settings: StudySettings) -> dict[str, tuple[str, str]]:
    now = records.versions(settings)
    names = dict.fromkeys(name for name in (*record.versions, *now) if not name.startswith(records.SERVER))
    pairs = {name: (record.versions.get(name, "-"), now.get(name, "-")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _shown(changes: tuple[Any, ...]) -> str:
    return ", ".join(f"slot {one.slot} = {one.number}" for one in changes) or "nothing"
