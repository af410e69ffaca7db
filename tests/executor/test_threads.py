from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from evomerge.candidate import Score
from evomerge.errors import ServiceError
from evomerge.executor.port import Ancestry, Executor, Factory, Task
from evomerge.executor.threads import ThreadExecutor
from evomerge.testing.executor import ExecutorContract
from evomerge.testing.misbehaving import FakeFactory, fake_score, fake_task


class TestThreads(ExecutorContract):
    isolates = False

    def make(self, factory: Factory, ancestry: Ancestry, **options: Any) -> Executor:
        return ThreadExecutor(factory, ancestry, workers=3, **options)


def test_as_many_are_in_flight_as_there_are_threads() -> None:
    """Nobody gets through the barrier unless all four are there at once."""
    barrier = threading.Barrier(4, timeout=30)

    def evaluator(task: Task, ancestors: Any) -> Score:
        barrier.wait()
        return fake_score(task.candidate.recipe)

    with ThreadExecutor(lambda: evaluator, lambda recipe, known: (), workers=4) as executor:
        for number in range(8):
            executor.submit(fake_task(number))
        found = [executor.next(30) for _ in range(8)]
    assert all(one is not None and one.score is not None for one in found)


def test_waiting_has_a_limit(tmp_path: Path) -> None:
    with ThreadExecutor(FakeFactory(tmp_path, {1: "slow"}), lambda recipe, known: (), workers=2) as executor:
        executor.submit(fake_task(1))
        assert executor.next(0.05) is None
        found = executor.next(30)
        assert found is not None
        assert found.score is not None


def test_a_server_at_fault_fails_no_candidate() -> None:
    """The error comes out, and the task is there when the server is back."""
    up: list[bool] = []

    def evaluator(task: Task, ancestors: Any) -> Score:
        if not up:
            raise ServiceError("nobody answers")
        return fake_score(task.candidate.recipe)

    with ThreadExecutor(lambda: evaluator, lambda recipe, known: (), workers=2) as executor:
        executor.submit(fake_task(0))
        with pytest.raises(ServiceError, match="nobody answers"):
            executor.next(30)
        up.append(True)
        found = executor.next(30)
        assert found is not None
        assert found.score is not None
        assert found.cost.attempts == 1
        assert executor.next(0) is None
