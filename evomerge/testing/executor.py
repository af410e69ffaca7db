"""The contract of every executor; the evaluators it uses are in `evomerge.testing.misbehaving`.

Inherit `ExecutorContract` in a test module and say how to make the executor::

    class TestMine(ExecutorContract):
        isolates = True

        def make(self, factory, ancestry, **options):
            return MyExecutor(factory, ancestry, **options)
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from evomerge.candidate import Evaluated, Recipe
from evomerge.errors import ConfigError, ExecutorError, PoolError
from evomerge.executor.port import Ancestry, Executor, Factory, Task
from evomerge.lineage import ancestry
from evomerge.testing.misbehaving import FakeFactory, fake_score, fake_task, family

LIMIT = 60.0  # seconds until a test gives up waiting


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """SIGINT raises `KeyboardInterrupt`, also in a process that was started in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class ExecutorContract:
    """What every executor must hold. ``isolates``: evaluations run in processes that may die, while others go on."""

    isolates: ClassVar[bool] = True

    def make(self, factory: Factory, ancestry: Ancestry, **options: Any) -> Executor:
        """The executor under test; options are ``time_limit``, ``attempts`` and ``on_event``."""
        raise NotImplementedError

    # --- helpers ----------------------------------------------------------------------------------------------

    @staticmethod
    def collect(executor: Executor, tasks: Iterable[Task]) -> dict[int, Evaluated]:
        """Submit all, take all, each exactly once."""
        tasks = list(tasks)
        for task in tasks:
            executor.submit(task)
        results: dict[int, Evaluated] = {}
        for _ in tasks:
            evaluated = executor.next(LIMIT)
            assert evaluated is not None, f"only {sorted(results)} came back"
            assert evaluated.candidate.number not in results
            assert (evaluated.score is None) != (evaluated.failure is None)
            results[evaluated.candidate.number] = evaluated
        assert executor.next(0.0) is None
        return results

    @staticmethod
    def good(evaluated: Evaluated) -> bool:
        """Whether the score is what it should be, bit for bit."""
        score, wanted = evaluated.score, fake_score(evaluated.candidate.recipe)
        if score is None or score.items is None or score.losses is None:
            return False
        assert wanted.items is not None and wanted.losses is not None  # noqa: PT018 - for the type checker
        same = np.array_equal(score.items, wanted.items) and np.array_equal(score.losses, wanted.losses)
        return same and score.objectives == wanted.objectives and score.items.dtype == np.bool_

    def run(self, factory: FakeFactory, tasks: Iterable[Task], **options: Any) -> dict[int, Evaluated]:
        """`collect` on a fresh executor that knows the tasks' recipes."""
        tasks = list(tasks)
        with self.make(factory, self.known(tasks), **options) as executor:
            return self.collect(executor, tasks)

    @staticmethod
    def known(tasks: Iterable[Task]) -> Ancestry:
        """The ancestry among the tasks' recipes."""
        recipes = {task.candidate.recipe.digest: task.candidate.recipe for task in tasks}

        def lookup(digests: Iterable[str]) -> dict[str, Recipe]:
            return {digest: recipes[digest] for digest in digests if digest in recipes}

        return partial(ancestry, lookup=lookup)

    # --- the contract -----------------------------------------------------------------------------------------

    def test_every_task_comes_back_once_with_its_score(self, tmp_path: Path) -> None:
        """Scores arrive bit for bit, and cost says how many attempts it took."""
        results = self.run(FakeFactory(tmp_path), map(fake_task, range(12)))
        assert sorted(results) == list(range(12))
        assert all(self.good(evaluated) for evaluated in results.values())
        assert all(e.cost.attempts == 1 and e.cost.worker and e.cost.seconds >= 0 for e in results.values())

    def test_nothing_submitted_is_nothing_to_wait_for(self, tmp_path: Path) -> None:
        """``next`` never waits for what nobody asked."""
        with self.make(FakeFactory(tmp_path), self.known([])) as executor:
            assert executor.workers >= 1
            assert executor.next() is None
            assert executor.next(0.0) is None

    def test_goes_on_after_it_ran_dry(self, tmp_path: Path) -> None:
        """Tasks may be submitted at any time."""
        with self.make(FakeFactory(tmp_path), self.known([])) as executor:
            assert self.good(self.collect(executor, [fake_task(0)])[0])
            assert self.good(self.collect(executor, [fake_task(1)])[1])

    def test_failures_are_tried_twice_and_told_with_their_reason(self, tmp_path: Path) -> None:
        """Whatever an evaluation does wrong fails its own candidate and no other."""
        wrong = {
            1: ("raise", "ValueError: nothing good about linear"),
            2: ("nan", "finite"),
            3: ("ragged", "shape"),
            4: ("nothing", "NoneType"),
            5: ("sys.exit", "SystemExit"),
            6: ("odd notes", "notes"),
            7: ("always missing", "ancestors"),
        }
        factory = FakeFactory(tmp_path, {number: way for number, (way, _) in wrong.items()})
        results = self.run(factory, map(fake_task, range(10)))
        for number, evaluated in results.items():
            if number not in wrong:
                assert self.good(evaluated)
                continue
            assert evaluated.failure is not None
            assert wrong[number][1] in evaluated.failure
            assert "\n" not in evaluated.failure
            assert evaluated.cost.attempts == 2
            assert factory.evaluations(number) == (0 if wrong[number][0] == "always missing" else 2)

    def test_attempts_can_be_one(self, tmp_path: Path) -> None:
        """``attempts=1`` tries nothing again."""
        factory = FakeFactory(tmp_path, {0: "raise once"})
        results = self.run(factory, [fake_task(0)], attempts=1)
        assert results[0].failure is not None
        assert factory.evaluations(0) == 1

    def test_a_failure_that_passes_is_forgiven(self, tmp_path: Path) -> None:
        """Success at the second attempt is success."""
        results = self.run(FakeFactory(tmp_path, {0: "raise once"}), map(fake_task, range(3)))
        assert all(self.good(evaluated) for evaluated in results.values())
        assert results[0].cost.attempts == 2

    def test_objectives_become_plain_floats(self, tmp_path: Path) -> None:
        """So that the exact codec takes them."""
        score = self.run(FakeFactory(tmp_path, {0: "numpy"}), [fake_task(0)])[0].score
        assert score is not None
        assert type(score["score"]) is float

    def test_a_hanging_evaluation_is_ended(self, tmp_path: Path) -> None:
        """The time limit fails its candidate; the others are scored."""
        factory = FakeFactory(tmp_path, {1: "hang", 2: "hang once"})
        results = self.run(factory, map(fake_task, range(5)), time_limit=0.5)
        assert "time limit of 0.5 s" in str(results.pop(1).failure)
        assert all(self.good(evaluated) for evaluated in results.values())

    def test_ancestors_are_sent_when_missed(self, tmp_path: Path) -> None:
        """Oldest first and complete, also to workers that never saw them or forgot them."""
        tasks = family(10)
        for forgetful in (False, True):
            results = self.run(FakeFactory(tmp_path, forgetful=forgetful), reversed(tasks)) | {}
            assert all(self.good(evaluated) for evaluated in results.values())

    def test_an_ancestor_nobody_has_is_an_error(self, tmp_path: Path) -> None:
        """What ``ancestry`` raises comes out of ``next``."""

        def refuse(recipe: Recipe, cached: frozenset[str]) -> tuple[Recipe, ...]:
            raise PoolError("no such ancestor")

        with self.make(FakeFactory(tmp_path), refuse) as executor:
            executor.submit(family(3)[2])
            with pytest.raises(PoolError, match="no such ancestor"):
                executor.next(LIMIT)

    def test_a_factory_that_raises_stops_everything(self, tmp_path: Path) -> None:
        """Its own kind of error arrives, with its message; an unexpected one is named."""
        cases = [(PoolError("pool.members.a is gone"), PoolError), (KeyError("what"), ExecutorError)]
        for broken, kind in cases:
            with self.make(FakeFactory(tmp_path, broken=broken), self.known([])) as executor:
                executor.submit(fake_task(0))
                with pytest.raises(kind, match=r"pool\.members\.a is gone|KeyError: 'what'"):
                    executor.next(LIMIT)

    @pytest.mark.parametrize(("way", "kind"), [("bad pool once", PoolError), ("bad data once", ConfigError)])
    def test_errors_of_the_study_are_raised_and_lose_no_task(self, tmp_path: Path, way: str, kind: type) -> None:
        """No candidate is failed for them, and the task is still there afterwards."""
        with self.make(FakeFactory(tmp_path, {0: way}), self.known([])) as executor:
            executor.submit(fake_task(0))
            with pytest.raises(kind, match="bring"):
                executor.next(LIMIT)
            evaluated = executor.next(LIMIT)
            assert evaluated is not None
            assert self.good(evaluated)

    def test_an_interrupt_passes_through_and_loses_no_task(self, tmp_path: Path) -> None:
        """Ctrl-C during ``next`` is Ctrl-C for its caller, who may go on."""
        with self.make(FakeFactory(tmp_path, {1: "slow"}), self.known([])) as executor:
            self.collect(executor, [fake_task(0)])  # whatever sets itself up is set up
            executor.submit(fake_task(1))
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
            with heeding_interrupts():
                timer.start()
                with pytest.raises(KeyboardInterrupt):
                    executor.next(LIMIT)
            timer.join()
            evaluated = executor.next(LIMIT)
            assert evaluated is not None
            assert self.good(evaluated)

    def test_close_drops_what_is_in_flight(self, tmp_path: Path) -> None:
        """At once, and twice if need be."""
        executor = self.make(FakeFactory(tmp_path, {0: "hang"}), self.known([]))
        executor.submit(fake_task(0))
        executor.close()
        executor.close()

    # --- for executors with processes of their own ------------------------------------------------------------

    def test_waiting_has_a_limit(self, tmp_path: Path) -> None:
        """``next(timeout)`` comes back empty-handed, and the result is there later."""
        self._needs_processes()
        with self.make(FakeFactory(tmp_path, {1: "slow"}), self.known([])) as executor:
            self.collect(executor, [fake_task(0)])
            executor.submit(fake_task(1))
            assert executor.next(0.05) is None
            evaluated = executor.next(LIMIT)
            assert evaluated is not None
            assert self.good(evaluated)

    def test_an_evaluation_that_kills_its_worker_fails_alone(self, tmp_path: Path) -> None:
        """The worker is replaced, which is told; the other candidates are scored."""
        self._needs_processes()
        events: list[tuple[Any, ...]] = []
        factory = FakeFactory(tmp_path, {1: "exit", 4: "exit once"})
        results = self.run(factory, map(fake_task, range(8)), on_event=lambda *event: events.append(event))
        assert "died" in str(results.pop(1).failure)
        assert all(self.good(evaluated) for evaluated in results.values())
        assert len([event for event in events if event[:2] == ("warning", "worker") and event[3] == 1]) >= 2

    def test_those_behind_a_killer_are_not_charged(self, tmp_path: Path) -> None:
        """With one attempt each, a charge would be a failure."""
        self._needs_processes()
        factory = FakeFactory(tmp_path, dict.fromkeys((2, 5), "exit slowly"))
        results = self.run(factory, map(fake_task, range(8)), attempts=1)
        assert {number for number, evaluated in results.items() if evaluated.failure} == {2, 5}
        assert all(factory.evaluations(number) == 1 for number in range(8))

    def _needs_processes(self) -> None:
        if not self.isolates:
            pytest.skip("evaluates in this very process")
