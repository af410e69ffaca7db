"""The contract of every executor, and evaluators that misbehave on demand.

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
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import pytest

from evomerge.candidate import ANCESTOR, Candidate, Evaluated, Recipe, Score, Segment
from evomerge.errors import ConfigError, ExecutorError, PoolError
from evomerge.executor.port import Ancestry, Executor, Factory, Missing, Task
from evomerge.lineage import ancestry

LIMIT = 60.0  # seconds until a test gives up waiting


def fake_score(recipe: Recipe) -> Score:
    """A score made of nothing but the recipe's digest."""
    items = np.frombuffer(bytes.fromhex(recipe.digest), dtype=np.uint8)
    return Score((("score", int(recipe.digest[:8], 16) / 2**32),), items % 2 == 0, items / 255.0)


@dataclass(frozen=True)
class FakeFactory:
    """Makes a `FakeEvaluator`. ``ways`` says how it behaves for which candidate number; default: well.

    ``folder`` is where evaluators, in whatever process, leave a file per evaluation; ``broken`` is what the factory
    itself raises; ``forgetful`` makes the evaluator drop its recipes after every answer of `Missing`.
    """

    folder: Path
    ways: Mapping[int, str] = field(default_factory=dict)
    broken: Exception | None = None
    forgetful: bool = False

    def __call__(self) -> FakeEvaluator:
        if self.broken is not None:
            raise self.broken
        return FakeEvaluator(self)

    def evaluations(self, number: int) -> int:
        """How many times the candidate was evaluated (answers of `Missing` not counted)."""
        return sum(1 for _ in self.folder.glob(f"{number}.*"))


class FakeEvaluator:
    """Scores by digest, or behaves in one of the ways that `BEHAVIOURS` lists."""

    def __init__(self, factory: FakeFactory) -> None:
        self.factory = factory
        self.known: set[str] = set()

    def __call__(self, task: Task, ancestors: tuple[Recipe, ...]) -> Score | Missing:
        """Score the task, if all ancestors are known."""
        number, recipe = task.candidate.number, task.candidate.recipe
        way = self.factory.ways.get(number, "well")
        if not self._learn((*ancestors, recipe)) or way == "always missing":
            cached = frozenset(self.known)
            if self.factory.forgetful:
                self.known.clear()
            return Missing(cached)
        earlier = self.factory.evaluations(number)
        (self.factory.folder / f"{number}.{uuid4().hex}").touch()
        if way.endswith(" once"):
            way = "well" if earlier else way.removesuffix(" once")
        score: Score = BEHAVIOURS[way](recipe)
        return score

    def _learn(self, recipes: Iterable[Recipe]) -> bool:
        """Take recipes in, oldest first; whether none came before its ancestors."""
        for recipe in recipes:
            if any(digest not in self.known for digest in recipe.ancestors):
                return False
            self.known.add(recipe.digest)
        return True


def _raise(recipe: Recipe) -> Score:
    raise ValueError(f"nothing good about\n{recipe.operator}")


def _exit_at_once(recipe: Recipe) -> Score:
    os._exit(1)


def _exit_slowly(recipe: Recipe) -> Score:
    time.sleep(0.3)  # so that what was answered before is out of the house
    os._exit(1)


def _sys_exit(recipe: Recipe) -> Score:
    raise SystemExit(3)


def _hang(recipe: Recipe) -> Score:
    time.sleep(1000)
    return fake_score(recipe)


def _slow(recipe: Recipe) -> Score:
    time.sleep(1.0)
    return fake_score(recipe)


def _not_finite(recipe: Recipe) -> Score:
    return Score((("score", float("nan")),))


def _ragged(recipe: Recipe) -> Score:
    return Score((("score", 0.5),), np.ones(3, bool), np.ones(4))


def _numpy(recipe: Recipe) -> Score:
    return Score((("score", np.float32(0.5)),))  # type: ignore[arg-type]  # what a careless fitness returns


def _odd_notes(recipe: Recipe) -> Score:
    return Score((("score", 0.5),), notes=(("lock", threading.Lock()),))  # type: ignore[arg-type]  # as above


def _bad_pool(recipe: Recipe) -> Score:
    raise PoolError("the pool is gone; bring it back")


def _bad_data(recipe: Recipe) -> Score:
    raise ConfigError("the data are gone; bring them back")


def _nothing(recipe: Recipe) -> Any:
    return None


BEHAVIOURS: dict[str, Callable[[Recipe], Any]] = {
    "well": fake_score,
    "raise": _raise,
    "exit": _exit_at_once,
    "exit slowly": _exit_slowly,
    "sys.exit": _sys_exit,
    "hang": _hang,
    "slow": _slow,
    "nan": _not_finite,
    "ragged": _ragged,
    "numpy": _numpy,
    "odd notes": _odd_notes,
    "bad pool": _bad_pool,
    "bad data": _bad_data,
    "nothing": _nothing,
}
"""Each also as ``"... once"``: that way at the first evaluation, well afterwards. And ``"always missing"``."""


def fake_task(number: int, parents: tuple[Recipe, ...] = ()) -> Task:
    """A task whose recipe is unlike those of other numbers."""
    sources = tuple(ANCESTOR + parent.digest for parent in parents) or ("pool:a",)
    weights = (1.0 + number,) * len(sources)
    return Task(Candidate(number, Recipe("linear", sources, (Segment("all", 0, 4, weights),))))


def family(size: int) -> list[Task]:
    """Tasks of which each descends from the two before it."""
    tasks: list[Task] = []
    for number in range(size):
        tasks.append(fake_task(number, tuple(task.candidate.recipe for task in tasks[-2:])))
    return tasks


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
