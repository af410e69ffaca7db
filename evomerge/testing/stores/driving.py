"""The part of the store contract about driving a study: durability, repeatable writes, the lease."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Candidate, Cost, Evaluated, Score
from evomerge.errors import CodecError, LeaseError, StoreError
from evomerge.store.port import Artifact, Change, Snapshot, StudyStore, Turn
from evomerge.testing.stores import samples
from evomerge.testing.stores.base import FOREVER, Factory, StoreFixtures, eventually, same
from evomerge.testing.stores.samples import RECORD, candidate, result


def write_everything(study: StudyStore) -> dict[str, Any]:
    """Every way to write, by name, ready to be called."""
    turn = samples.turns(1)[0]
    return {
        "save_turn": lambda: study.save_turn(turn),
        "save_scores": lambda: study.save_scores("report", [result(candidate(0))]),
        "save_snapshot": lambda: study.save_snapshot(Snapshot(-1, "", "")),
        "add_event": lambda: study.add_event("info", "note", "text"),
        "add_artifact": lambda: study.add_artifact(Artifact("a", "b", "c", "d", 0.0)),
        "set_status": lambda: study.set_status("running"),
        "amend": lambda: study.amend(RECORD),
    }


class DrivingContract(StoreFixtures):
    """One driver, whole turns, nothing lost."""

    # --- durability -------------------------------------------------------------------------------------------

    def test_only_the_writer_sees_what_is_not_durable(self, study: StudyStore, connect: Factory) -> None:
        """The first save commits at once, later ones wait for their group."""
        journal = samples.turns(4)
        for turn in journal:
            study.save_turn(turn)
        reader = connect().open(RECORD.name)
        assert same(reader.turns(), journal[:1])
        assert reader.summary().asked == samples.WINDOW
        assert same(study.turns(), journal)
        assert study.summary().told == 3

    def test_flush_makes_everything_durable(self, study: StudyStore, connect: Factory) -> None:
        """For every reader."""
        journal = samples.turns(4)
        for turn in journal:
            study.save_turn(turn)
        study.flush()
        assert same(connect().open(RECORD.name).turns(), journal)

    def test_nothing_waits_longer_than_commit_every(self, connect: Factory) -> None:
        """Although the driver is busy evaluating and calls nothing."""
        study, reader = connect(commit_every=0.05).open(RECORD.name, write=True), connect().open(RECORD.name)
        for turn in samples.turns(3):
            study.save_turn(turn)
        assert eventually(lambda: len(list(reader.turns(items=False))) == 3)

    def test_without_groups_every_turn_is_durable_at_once(self, connect: Factory) -> None:
        """``commit_every=0``."""
        study, reader = connect(commit_every=0).open(RECORD.name, write=True), connect().open(RECORD.name)
        for turn in samples.turns(3):
            study.save_turn(turn)
            assert len(list(reader.turns())) == turn.seq + 1

    def test_a_dead_driver_leaves_whole_turns(self, study: StudyStore, connect: Factory) -> None:
        """What was durable is there, what was not is gone, and the next driver goes on from there."""
        journal = samples.turns(9)
        for turn in journal[:5]:
            study.save_turn(turn)
        study.flush()
        for turn in journal[5:8]:
            study.save_turn(turn)
        study.abandon()
        heir = connect().open(RECORD.name, write=True, steal=True)
        assert same(heir.turns(), journal[:5])
        assert heir.summary().told == 4
        for turn in journal[3:]:
            heir.save_turn(turn)
        assert same(heir.turns(), journal)
        assert heir.summary().told == 8

    def test_reading_while_writing(self, study: StudyStore) -> None:
        """An iterator goes on over what was there."""
        journal = samples.turns(9)
        for turn in journal[:5]:
            study.save_turn(turn)
        reading = study.turns()
        found = [next(reading)]
        for turn in journal[5:]:
            study.save_turn(turn)
        found += reading
        assert same(found, journal[:5])

    # --- repeatable writes ------------------------------------------------------------------------------------

    def test_saving_a_turn_twice_changes_nothing(self, study: StudyStore) -> None:
        """Costs may differ: they are no part of the search."""
        journal = samples.turns(5)
        for turn in journal:
            study.save_turn(turn)
        before = study.summary()
        for turn in journal:
            study.save_turn(replace(turn, told=tuple(replace(one, cost=Cost(9.0, 2, "x")) for one in turn.told)))
        assert same(study.turns(), journal)
        assert replace(study.summary(), updated=0, lease=None) == replace(before, updated=0, lease=None)

    @pytest.mark.parametrize(
        "turn",
        [
            replace(samples.turns(4)[3], told=()),
            replace(samples.turns(4)[3], changes=(Change(0, 0),)),
            Turn(5, asked=(candidate(6),)),
            Turn(4, asked=(candidate(7),)),
            Turn(4, asked=(candidate(5),)),
            Turn(4, told=(result(candidate(6)),), asked=(candidate(6),)),
        ],
        ids=["another", "other changes", "gap", "gap in candidates", "asked twice", "told before asked"],
    )
    def test_a_turn_that_does_not_fit_is_refused(self, study: StudyStore, turn: Turn) -> None:
        """And leaves nothing behind."""
        journal = samples.turns(5)
        for fitting in journal[:4]:
            study.save_turn(fitting)
        with pytest.raises(StoreError):
            study.save_turn(turn)
        study.save_turn(journal[4])
        assert same(study.turns(), journal)

    @pytest.mark.parametrize(
        "told",
        [
            Evaluated(candidate(1), Score((("accuracy", np.float64(0.5)),))),
            Evaluated(candidate(1), Score((("accuracy", 1),))),
            Evaluated(candidate(1), Score((("accuracy", 0.5),), np.array(["text"]))),
            Evaluated(replace(candidate(1), number=np.int64(1)), failure=""),  # type: ignore[arg-type]
        ],
        ids=["numpy float", "int for float", "array of text", "numpy int"],
    )
    def test_a_value_that_would_not_come_back_is_refused(self, study: StudyStore, told: Evaluated) -> None:
        """The whole turn with it."""
        journal = samples.turns(3)
        study.save_turn(journal[0])
        with pytest.raises(CodecError):
            study.save_turn(Turn(1, (result(candidate(0)), told), (candidate(3),)))
        for turn in journal[1:]:
            study.save_turn(turn)
        assert same(study.turns(), journal)

    # --- the lease --------------------------------------------------------------------------------------------

    def test_a_second_driver_is_refused(self, study: StudyStore, connect: Factory) -> None:
        """The error says who drives, where, since when; anyone may read."""
        lease = study.summary().lease
        assert lease is not None
        assert lease.pid == os.getpid()
        assert lease.since <= lease.heartbeat < lease.expires
        with pytest.raises(LeaseError, match=rf"process {lease.pid} on host {lease.host} since 2.*owner {lease.owner}"):
            connect().open(RECORD.name, write=True)
        assert connect().open(RECORD.name).summary().lease == lease

    def test_a_released_study_may_be_driven_by_another(self, study: StudyStore, connect: Factory) -> None:
        """Releasing flushes; twice is once."""
        journal = samples.turns(4)
        for turn in journal:
            study.save_turn(turn)
        study.release()
        study.release()
        heir = connect().open(RECORD.name, write=True)
        assert same(heir.turns(), journal)
        assert heir.events() == ()

    def test_closing_the_store_releases_its_studies(self, connect: Factory) -> None:
        """Closing twice is closing once."""
        store = connect(commit_every=FOREVER)
        study = store.open(RECORD.name, write=True)
        for turn in samples.turns(4):
            study.save_turn(turn)
        store.close()
        store.close()
        assert len(list(connect().open(RECORD.name, write=True).turns())) == 4

    @pytest.mark.parametrize("how", ["read", "released", "abandoned"])
    def test_writing_needs_the_lease(self, connect: Factory, how: str) -> None:
        """Each way of writing refuses without it."""
        study = connect().open(RECORD.name, write=how != "read")
        if how != "read":
            study.release() if how == "released" else study.abandon()
        for write in write_everything(study).values():
            with pytest.raises(LeaseError, match=RECORD.name):
                write()
        study.flush()
        study.release()
        assert list(connect().open(RECORD.name).turns()) == []

    def test_a_silent_driver_loses_its_study(self, connect: Factory) -> None:
        """After ``lease_seconds``, not before; the log says so."""
        connect(lease_seconds=0.5).open(RECORD.name, write=True).abandon()
        with pytest.raises(LeaseError, match="runs out"):
            connect().open(RECORD.name, write=True)
        time.sleep(0.6)
        heir = connect().open(RECORD.name, write=True)
        assert [(event.level, event.kind) for event in heir.events()] == [("warning", "takeover")]

    def test_a_busy_driver_keeps_its_study(self, connect: Factory) -> None:
        """The heartbeat goes on while it calls nothing."""
        study = connect(lease_seconds=0.4).open(RECORD.name, write=True)
        time.sleep(1.0)
        with pytest.raises(LeaseError):
            connect().open(RECORD.name, write=True)
        study.save_turn(samples.turns(1)[0])

    def test_a_robbed_driver_writes_nothing_more(self, study: StudyStore, connect: Factory) -> None:
        """Neither what it had saved nor what it would; the new driver is not disturbed."""
        journal = samples.turns(6)
        for turn in journal[:3]:
            study.save_turn(turn)
        heir = connect().open(RECORD.name, write=True, steal=True)
        with pytest.raises(LeaseError, match="taken over by process"):
            study.flush()
        for write in write_everything(study).values():
            with pytest.raises(LeaseError, match="taken over"):
                write()
        for turn in journal[1:]:
            heir.save_turn(turn)
        study.release()
        assert same(heir.turns(), journal)
        heir.release()
        assert connect().open(RECORD.name).summary().lease is None

    def test_a_robbed_driver_notices_by_itself(self, connect: Factory) -> None:
        """Its heartbeat finds out."""
        study = connect(lease_seconds=0.1).open(RECORD.name, write=True)
        connect().open(RECORD.name, write=True, steal=True)
        time.sleep(0.3)
        with pytest.raises(LeaseError, match="taken over"):
            study.save_turn(Turn(0, asked=(Candidate(0, candidate(0).recipe),)))
