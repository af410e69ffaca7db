"""Drivers killed in the middle of writing: nothing durable is lost, nothing half is there, the next goes on at once."""

import multiprocessing
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from evomerge.errors import StoreError
from evomerge.store import open_store
from evomerge.store.port import StudyStore
from evomerge.testing.stores.base import FOREVER, eventually, same
from evomerge.testing.stores.driver import drive
from evomerge.testing.stores.samples import RECORD, WINDOW, turn

KILLS = 10  # for each of three
LENGTH = 100_000


def check_is_whole(url: str, before: int = 0) -> int:
    """The journal from turn ``before`` on is as unbroken, and status, scores, snapshots agree with it; its length."""
    with open_store(url) as store:
        study = store.open(RECORD.name)
        found = list(study.turns(after=before - 1))
        assert same(found, [turn(seq) for seq in range(before, before + len(found))])
        length, summary = before + len(found), study.summary()
        assert (summary.asked, summary.told) == (length + WINDOW - 1, length - 1) if length else (0, 0)
        assert summary.told == sum(1 for _ in study.scores("search", items=False))
        assert all(snapshot.seq < length for snapshot in study.snapshots())
        return length


def kill_and_check(url: str, commit_every: float) -> None:
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["evomerge.testing.stores.driver", "evomerge.store.sql", "psycopg"])
    with open_store(url) as store:
        store.create(RECORD)
    chance, done = random.Random(5), 0
    for _ in range(KILLS):
        driver = fork.Process(target=drive, args=(url, RECORD.name, LENGTH, commit_every))
        driver.start()
        wait_until_at_work(url, done)
        time.sleep(chance.uniform(0, 0.03))
        driver.kill()
        driver.join()
        done = check_is_whole(url, done)
    assert KILLS < done < LENGTH
    with open_store(url) as store:
        study = store.open(RECORD.name, write=True)
        assert {event.kind for event in study.events()} == {"takeover"}
        for seq in range(done - 5, done + 5):
            study.save_turn(turn(seq))
    assert check_is_whole(url) == done + 5


def wait_until_at_work(url: str, done: int) -> None:
    with open_store(url) as store:
        study = store.open(RECORD.name)
        assert eventually(lambda: study.summary().told > done)


@pytest.mark.chaos
@pytest.mark.parametrize("commit_every", [0.0, 0.01])
def test_killed_on_sqlite(tmp_path: Path, commit_every: float) -> None:
    kill_and_check(f"sqlite:///{tmp_path}/study.db", commit_every)


@pytest.mark.chaos
@pytest.mark.pg
def test_killed_on_postgres(postgres_url: str) -> None:
    kill_and_check(postgres_url, 0.01)


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # interrupts that hit a destructor
def test_interrupted_at_any_instant(tmp_path: Path) -> None:
    """Ctrl-C raises wherever it comes; the driver still releases the study, and leaves whole turns."""
    url, chance, done = f"sqlite:///{tmp_path}/study.db", random.Random(7), 0
    with open_store(url) as store:
        store.create(RECORD)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(40):
            with open_store(url, commit_every=0.001) as store:
                study = store.open(RECORD.name, write=True)
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.02))
                with suppress(KeyboardInterrupt):
                    drive_a_while(study, done)
                study.release()
            done = check_is_whole(url, done)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert check_is_whole(url) == done > 40


def drive_a_while(study: StudyStore, seq: int) -> None:
    end = time.monotonic() + 0.5  # an interrupt may get lost in a destructor
    while time.monotonic() < end:
        study.save_turn(turn(seq))
        seq += 1


def test_half_a_save_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(f"sqlite:///{tmp_path}/study.db", commit_every=FOREVER) as store:
        store.create(RECORD)
        study = store.open(RECORD.name, write=True)
        for seq in range(3):
            study.save_turn(turn(seq))
        study.flush()
        study.save_turn(turn(3))
        monkeypatch.setattr("evomerge.store.head.Head.count", interrupt)
        with pytest.raises(KeyboardInterrupt):
            study.save_turn(turn(4))
        for save in (study.flush, lambda: study.save_turn(turn(4))):
            with pytest.raises(StoreError, match="interrupted half-way"):
                save()
        study.release()
        heir = store.open(RECORD.name, write=True)
        assert same(heir.turns(), [turn(seq) for seq in range(3)])
        assert [one.candidate.number for one in heir.scores("search")] == [0, 1]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
