from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from evomerge.executor import alarm
from evomerge.executor.inline import InlineExecutor
from evomerge.executor.port import Ancestry, Executor, Factory
from evomerge.testing.executor import ExecutorContract
from evomerge.testing.misbehaving import FakeFactory, fake_task


class TestInline(ExecutorContract):
    isolates = False

    def make(self, factory: Factory, ancestry: Ancestry, **options: Any) -> Executor:
        return InlineExecutor(factory, ancestry, **options)


def test_makes_the_evaluator_once_and_only_when_asked(tmp_path: Path) -> None:
    made: list[int] = []

    def factory() -> Any:
        made.append(1)
        return FakeFactory(tmp_path)()

    with InlineExecutor(factory, lambda recipe, known: ()) as executor:
        executor.submit(fake_task(0))
        executor.submit(fake_task(1))
        assert not made
        executor.next()
        executor.next()
        assert len(made) == 1


def test_says_once_that_there_is_no_time_limit_in_a_thread(tmp_path: Path) -> None:
    events: list[tuple[Any, ...]] = []
    results: list[Any] = []

    def drive() -> None:
        factory = FakeFactory(tmp_path)
        note = lambda *event: events.append(event)  # noqa: E731 - as short as it gets
        with InlineExecutor(factory, lambda recipe, known: (), time_limit=1.0, on_event=note) as executor:
            executor.submit(fake_task(0))
            executor.submit(fake_task(1))
            results.extend([executor.next(), executor.next()])

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert all(evaluated.score is not None for evaluated in results)
    assert [event[:2] for event in events] == [("warning", "time_limit")]


def test_an_alarm_of_someone_else_goes_on() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    remaining = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(alarm.TimeUp):
            alarm.limited(lambda: time.sleep(10), 0.05)
        assert alarm.limited(lambda: 7, 10.0) == 7
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 0.2
        time.sleep(0.3)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *remaining)
