"""The part of the store contract about values: what goes in comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from evomerge.candidate import Cost, Evaluated, Score
from evomerge.errors import StoreError
from evomerge.store.port import Change, StudyStore, Turn
from evomerge.testing.stores import samples
from evomerge.testing.stores.base import LONG, Factory, StoreFixtures, same
from evomerge.testing.stores.samples import RECORD, candidate, result

DTYPES = ("bool", "i1", "u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8")


class ValueContract(StoreFixtures):
    """Turns, arrays, candidates, results."""

    def test_a_whole_journal_comes_back(self, study: StudyStore, connect: Factory) -> None:
        """Turn by turn, candidate by candidate, for the writer and for a later reader."""
        journal = samples.turns(LONG)
        for turn in journal:
            study.save_turn(turn)
        study.flush()
        for reader in (study, connect().open(RECORD.name)):
            assert same(reader.turns(), journal)
            assert same(reader.turns(after=LONG - 7), journal[-6:])
            assert list(reader.turns(after=LONG - 1)) == []
            results = [one for turn in journal for one in turn.told]
            assert same(reader.scores("search"), results)
            changes = [(turn.seq, change) for turn in journal for change in turn.changes]
            assert list(reader.changes()) == changes

    def test_results_may_be_told_in_any_order(self, study: StudyStore) -> None:
        """Several in a turn, too; `scores` sorts them by number, turns keep their order."""
        asked = tuple(candidate(number) for number in range(6))
        told = [tuple(result(asked[number]) for number in numbers) for numbers in ((5, 0), (3,), (4, 2, 1))]
        changes = (Change(1, 0), Change(0, 5), Change(1, 3))
        journal = [Turn(0, asked=asked), Turn(1, told[0], changes=changes), Turn(2, told[1]), Turn(3, told[2])]
        for turn in journal:
            study.save_turn(turn)
        assert same(study.turns(), journal)
        assert [one.candidate.number for one in study.scores("search")] == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_arrays_come_back_bit_for_bit(self, study: StudyStore, dtype: str) -> None:
        """Any number type, any length, also views; little endian."""
        values = np.random.default_rng(3).integers(0, 256, 8 * 100).astype(np.uint8)
        whole = values < 128 if dtype == "bool" else np.nan_to_num(values.view(dtype))
        arrays = [whole[:length] for length in (0, 1, 7, 8, 9, 100)] + [whole[::3], whole[::-1]]
        study.save_turn(Turn(0, asked=tuple(candidate(number) for number in range(len(arrays)))))
        told = [Evaluated(candidate(n), Score((("accuracy", 0.5),), array, array)) for n, array in enumerate(arrays)]
        study.save_turn(Turn(1, told=tuple(told)))
        for one, array in zip(study.scores("search"), arrays, strict=True):
            assert one.score is not None
            for found in (one.score.items, one.score.losses):
                assert found is not None
                assert found.dtype == array.dtype.newbyteorder("<")
                assert found.tolist() == array.tolist()
                assert not found.flags.writeable

    def test_an_array_may_be_reused_after_saving(self, study: StudyStore) -> None:
        """What is saved is what it was then."""
        scratch = np.array([1.0, 2.0], np.float32)
        study.save_turn(Turn(0, asked=(candidate(0), candidate(1))))
        study.save_turn(Turn(1, told=(Evaluated(candidate(0), Score((("accuracy", 1.0),), losses=scratch)),)))
        scratch[:] = 0
        (one,) = study.scores("search")
        assert one.score is not None
        assert one.score.losses is not None
        assert one.score.losses.tolist() == [1.0, 2.0]

    def test_anything_a_score_may_say_comes_back(self, study: StudyStore) -> None:
        """Any floats, any text."""
        names = some.text(min_size=1, max_size=5)
        texts = some.tuples(some.text(max_size=5), some.text(some.characters(), max_size=9))
        scored = some.builds(
            Score,
            some.lists(some.tuples(names, some.floats()), min_size=1, max_size=3).map(tuple),
            some.none(),
            some.none(),
            some.lists(texts, max_size=2).map(tuple),
        )
        outcome = some.tuples(scored, some.none()) | some.tuples(some.none(), some.text(some.characters(), max_size=9))

        @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(outcome, some.floats(0, 1e9), some.integers(1, 9))
        def check(outcome: tuple[Score | None, str | None], seconds: float, attempts: int) -> None:
            number = study.summary().asked
            told = Evaluated(candidate(number), *outcome, Cost(seconds, attempts, "node-1"))
            study.save_turn(Turn(2 * number, asked=(candidate(number),)))
            study.save_turn(Turn(2 * number + 1, told=(told,)))
            assert same(study.scores("search", [number]), [told])
            assert same(study.turns(after=2 * number), [Turn(2 * number + 1, told=(told,))])

        check()

    def test_numbers_per_item_can_be_left_out(self, study: StudyStore) -> None:
        """Objectives and notes stay."""
        for turn in samples.turns(9):
            study.save_turn(turn)
        for one in [*study.scores("search", items=False), *(one for t in study.turns(items=False) for one in t.told)]:
            whole = result(one.candidate)
            slim = replace(whole, score=whole.score and replace(whole.score, items=None, losses=None, slopes=None))
            assert same([one], [slim])

    def test_losses_can_be_left_out_for_good(self, connect: Factory) -> None:
        """With ``keep_losses=False`` items are kept, losses are not, and saving again is still the same."""
        study = connect(keep_losses=False).open(RECORD.name, write=True)
        journal = samples.turns(5)
        for turn in [*journal, *journal]:
            study.save_turn(turn)
        study.save_scores("report", [result(candidate(0))])
        for one in [*study.scores("search"), *study.scores("report")]:
            assert one.score is None or (one.score.items is not None and one.score.losses is None)

    def test_candidates_and_recipes_are_found_again(self, study: StudyStore) -> None:
        """By number in the order wanted, by digest where known, however many."""
        for turn in samples.turns(LONG):
            study.save_turn(turn)
        numbers = [7, 0, LONG, 7, *range(LONG)]
        assert study.candidates(numbers) == tuple(candidate(number) for number in numbers)
        assert study.candidates([]) == ()
        recipes = {candidate(number).recipe.digest: candidate(number).recipe for number in range(LONG)}
        assert study.recipes([*recipes, "0" * 32]) == recipes
        with pytest.raises(StoreError, match="no candidate 99999"):
            study.candidates([0, 99999])
        assert same(study.scores("search", [3, 1, 1, 99999]), [result(candidate(1)), result(candidate(3))])

    def test_other_splits_are_kept_apart(self, study: StudyStore) -> None:
        """By split; the first result of a candidate stays."""
        study.save_turn(samples.turns(1)[0])
        first = [result(candidate(1)), result(candidate(0))]
        study.save_scores("selection", first)
        study.save_scores("selection", [Evaluated(candidate(0), failure="later"), result(candidate(2))])
        assert same(study.scores("selection"), [result(candidate(number)) for number in range(3)])
        assert list(study.scores("report")) == []
        assert list(study.scores("search")) == []
        with pytest.raises(StoreError, match="candidate 99999, which was never asked"):
            study.save_scores("report", [result(candidate(99999))])

    def test_a_result_may_be_kept_before_its_turn_to_be_told(self, study: StudyStore) -> None:
        """It is there at once, counts when it is told, and is the same row then."""
        first, second, *_ = samples.turns(3)
        study.save_turn(first)
        early = second.told[0]
        study.save_scores("search", [early])
        assert same(study.scores("search"), [early])
        assert study.summary().told == 0
        study.save_turn(second)
        assert same(study.scores("search", [early.candidate.number]), [early])
        assert study.summary().told == len(second.told)
