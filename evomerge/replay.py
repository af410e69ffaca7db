"""From the journal back to a strategy's state: the newest snapshot, and the turns after it through a fresh strategy."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TypeVar

from evomerge import codec
from evomerge.candidate import Candidate
from evomerge.errors import ResumeError
from evomerge.store.port import Change, StudyStore, Turn
from evomerge.strategy import State, Strategy

S = TypeVar("S", bound=State)


def advance(strategy: Strategy[S], state: S, turn: Turn) -> S:
    """The state after a journalled turn, proving on the way that the strategy asks again what it asked then.

    Raises:
        ResumeError: it asks something else; the message names the first candidate that differs.
    """
    for evaluated in turn.told:
        state = strategy.tell(state, evaluated)
    if not turn.asked:
        return state
    state, asked = strategy.ask(state, len(turn.asked))
    for then, now in zip(turn.asked, asked, strict=False):
        if _identity(then) != _identity(now):
            raise ResumeError(
                f"turn {turn.seq}: the strategy now asks another candidate {now.number} than the journal holds; the "
                "strategy's code, its settings or a library changed since; resume with the versions stored with it"
            )
    if len(asked) != len(turn.asked):
        raise ResumeError(f"turn {turn.seq}: the strategy asked {len(turn.asked)} candidates then, {len(asked)} now")
    return state


def _identity(candidate: Candidate) -> tuple[object, ...]:
    return candidate.number, candidate.parents, candidate.recipe.digest, candidate.request


def state_digest(state: object) -> tuple[str, str]:
    """Digest and exact text of a strategy's state."""
    text = codec.dump(state)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), text


def restore(strategy: Strategy[S], study: StudyStore) -> tuple[S, int]:
    """The state that the journal leads to, and the number of its last turn (-1: none)."""
    state, seq = strategy.start(), -1
    for snapshot in reversed(study.snapshots()):
        if snapshot.state is not None:
            state, seq = codec.load(strategy.State, snapshot.state), snapshot.seq
            break
    for turn in study.turns(after=seq):
        state, seq = advance(strategy, state, turn), turn.seq
    return state, seq


def population_changes(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> tuple[Change, ...]:
    """Which slots of the population hold another candidate than before; those that are gone hold none."""
    if before == after:
        return ()
    return tuple(Change(slot, new) for slot, (old, new) in enumerate(zip_longest(before, after)) if old != new)
