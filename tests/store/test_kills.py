"""Drivers killed in the middle of writing: nothing durable is lost, nothing half is there, the next goes on at once."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from evomerge.store import open_store
from evomerge.testing.stores.base import eventually, same
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
