"""The part of the store contract about studies: names, records, status, log, snapshots, artifacts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.errors import StoreError, StudyExistsError, StudyNotFoundError
from evomerge.store.port import Artifact, Snapshot, StudyStore
from evomerge.testing.stores import samples
from evomerge.testing.stores.base import Factory, StoreFixtures, same
from evomerge.testing.stores.samples import RECORD, result


class StudyContract(StoreFixtures):
    """A study beside its journal."""

    def test_a_study_is_what_it_was_created_as(self, connect: Factory) -> None:
        """Every field, for every reader."""
        assert connect().open(RECORD.name).record == RECORD

    def test_a_name_is_taken_once(self, connect: Factory) -> None:
        """The error names it."""
        with pytest.raises(StudyExistsError, match=RECORD.name):
            connect().create(RECORD)

    def test_an_unknown_name_offers_the_nearest(self, connect: Factory) -> None:
        """For reading and for writing."""
        for write in (False, True):
            with pytest.raises(StudyNotFoundError, match=r"'digitz'.*did you mean 'digits'"):
                connect().open("digitz", write=write)

    def test_an_empty_database_has_no_studies(self, factory: Factory) -> None:
        """And says so rather than failing."""
        with factory() as store:
            assert store.studies() == ()
            with pytest.raises(StudyNotFoundError, match="nor any other"):
                store.open("digits")

    def test_studies_are_apart(self, connect: Factory) -> None:
        """Two studies with the same numbers do not see one another, and come sorted by name."""
        store = connect()
        store.create(replace(RECORD, name="another"))
        one, two = (store.open(name, write=True) for name in (RECORD.name, "another"))
        for study, length in ((one, 9), (two, 4)):
            for turn in samples.turns(length):
                study.save_turn(turn)
        assert same(one.turns(), samples.turns(9))
        assert same(two.turns(), samples.turns(4))
        assert [(summary.name, summary.told) for summary in connect().studies()] == [("another", 3), (RECORD.name, 8)]

    def test_amending_is_seen_by_everyone(self, study: StudyStore, connect: Factory) -> None:
        """Config, settings, versions and pool may change; what the search is may not."""
        amended = replace(RECORD, config="new", settings={"a": "b"}, versions={"numpy": "3"}, pool={})
        study.amend(amended)
        assert study.record == connect().open(RECORD.name).record == amended
        for change in ({"name": "x"}, {"seed": 1}, {"objective": "loss"}, {"direction": "minimize"}):
            with pytest.raises(StoreError, match=next(iter(change))):
                study.amend(replace(amended, **change))

    def test_status_and_counts(self, study: StudyStore, connect: Factory) -> None:
        """Of the search split, with the best value so far; the same for every reader once durable."""
        assert study.summary().status == "created"
        journal = samples.turns(12)
        for turn in journal:
            study.save_turn(turn)
        study.save_scores("selection", [result(samples.candidate(0))])
        study.set_status("finished", final=3)
        results = [one for turn in journal for one in turn.told]
        whole = [one.score if one.candidate.request.ranges is None else None for one in results]
        values = [score["accuracy"] if score else -1.0 for score in whole]
        mine, theirs = study.summary(), connect().open(RECORD.name).summary()
        assert mine == theirs == connect().studies()[0]
        assert (mine.name, mine.status, mine.final) == (RECORD.name, "finished", 3)
        assert (mine.asked, mine.told, mine.failed) == (14, 11, 2)
        assert (mine.best, mine.best_number) == (max(values), values.index(max(values)))
        assert 0 < mine.created <= mine.updated

    def test_requests_and_digests(self, study: StudyStore, connect: Factory) -> None:
        """Of every candidate asked, from any number on; how often each request came; how many items that were."""
        for turn in samples.turns(12):
            study.save_turn(turn)
        asked = [samples.candidate(number) for number in range(14)]
        for reader in (study, connect().open(RECORD.name)):
            assert list(reader.digests()) == [(one.number, one.recipe.digest, one.request) for one in asked]
            assert [number for number, _, _ in reader.digests(since=11)] == [11, 12, 13]
            assert list(reader.digests(since=14)) == []
            assert reader.requests() == {asked[number].request: 1 for number in (3, 7, 11)}
            assert reader.items_asked(20) == 11 * 20 + 3 * 11

    def test_a_leader_goes_into_the_summary_only(self, study: StudyStore, connect: Factory) -> None:
        """It takes the place of the best single result, and leaves the journal as it is."""
        for turn in samples.turns(6):
            study.save_turn(replace(turn, leader=(0.25, 1) if turn.seq == 5 else None))
        study.save_turn(samples.turn(5))
        summary = study.summary()
        assert (summary.best, summary.best_number) == (0.25, 1)
        study.flush()
        assert same(connect().open(RECORD.name).turns(), samples.turns(6))

    def test_the_best_may_be_the_smallest(self, connect: Factory) -> None:
        """When the study minimizes; and counting goes on where it stopped."""
        store = connect()
        store.create(replace(RECORD, name="least", objective="loss", direction="minimize"))
        journal = samples.turns(12)
        for part in (journal[:6], journal[6:]):
            study = store.open("least", write=True)
            for turn in part:
                study.save_turn(turn)
            study.release()
        values = {one.score["loss"]: one.candidate.number for turn in journal for one in turn.told if one.score}
        summary = store.open("least").summary()
        assert (summary.best, summary.best_number) == (min(values), values[min(values)])
        assert (summary.asked, summary.told, summary.failed) == (14, 11, 2)

    def test_only_the_newest_two_states_are_kept(self, study: StudyStore) -> None:
        """Digests stay for ever; saving a snapshot twice is nothing new; none comes before its turn."""
        for turn in samples.turns(10):
            study.save_turn(turn)
        for seq in (1, 4, 4, 9):
            study.save_snapshot(Snapshot(seq, f"digest {seq}", f"state {seq} ✓"))
        assert study.snapshots() == (
            Snapshot(1, "digest 1", None),
            Snapshot(4, "digest 4", "state 4 ✓"),
            Snapshot(9, "digest 9", "state 9 ✓"),
        )
        with pytest.raises(StoreError, match="before its turn"):
            study.save_snapshot(Snapshot(10, "", ""))

    def test_the_log_keeps_its_order(self, study: StudyStore, connect: Factory) -> None:
        """Oldest first; a limit takes the newest; a later driver appends."""
        study.add_event("info", "started", "bégun\0")
        study.add_event("error", "failed", "it broke", 7)
        study.release()
        later = connect().open(RECORD.name, write=True)
        later.add_event("warning", "resumed", "")
        said = [(event.level, event.kind, event.text, event.number) for event in later.events()]
        assert said == [
            ("info", "started", "bégun\0", None),
            ("error", "failed", "it broke", 7),
            ("warning", "resumed", "", None),
        ]
        assert later.events(limit=1) == later.events()[-1:]
        assert later.events(limit=0) == ()
        assert later.events(limit=99) == later.events()

    def test_an_artifact_replaces_its_namesake(self, study: StudyStore) -> None:
        """And they come by name."""
        old = Artifact("winner", "export", "out/a", "00", 1.5)
        for artifact in (old, Artifact("gram", "cache", "cache/gram", "11", 2.5), replace(old, digest="22")):
            study.add_artifact(artifact)
        assert study.artifacts() == (Artifact("gram", "cache", "cache/gram", "11", 2.5), replace(old, digest="22"))
