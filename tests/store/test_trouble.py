"""Databases that are locked, full, damaged, away: wait, say what and why, lose nothing that was committed."""

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from evomerge.errors import SchemaError, StoreError, StoreUnavailableError
from evomerge.store import open_store
from evomerge.store.database import Database
from evomerge.store.port import StudyStore
from evomerge.testing.stores.base import FOREVER, same
from evomerge.testing.stores.samples import RECORD, turn, turns


@pytest.fixture
def url(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path}/study.db"
    with open_store(address) as store:
        store.create(RECORD)
    return address


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


# --- locked -------------------------------------------------------------------------------------------------------


@pytest.fixture
def intruder(url: str) -> Iterator[sqlite3.Connection]:
    """Another program that holds the database's only write lock."""
    connection = sqlite3.connect(file_of(url), isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def test_a_short_lock_is_waited_for(url: str, intruder: sqlite3.Connection) -> None:
    with open_store(url, commit_every=0) as store:
        study = store.open(RECORD.name, write=True)
        intruder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, intruder.rollback).start()
        study.save_turn(turn(0))
        assert same(store.open(RECORD.name).turns(), turns(1))


def test_a_long_lock_ends_the_run_and_loses_nothing(url: str, intruder: sqlite3.Connection) -> None:
    with open_store(url, commit_every=0, retry_seconds=0.4) as store:
        study = store.open(RECORD.name, write=True)
        study.save_turn(turn(0))
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"study\.db.*database is locked.*resume"):
            study.save_turn(turn(1))
        assert same(store.open(RECORD.name).turns(), turns(1))
        intruder.rollback()
        study.flush()
        assert same(store.open(RECORD.name).turns(), turns(2))


def test_after_giving_up_nothing_waits_again(url: str, intruder: sqlite3.Connection) -> None:
    store = open_store(url, commit_every=0, retry_seconds=0.4)
    study = store.open(RECORD.name, write=True)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        study.save_turn(turn(0))
    with pytest.raises(StoreUnavailableError):
        study.release()
    study.release()
    store.close()
    intruder.rollback()
    with open_store(url) as later:
        assert later.open(RECORD.name, write=True, steal=True).summary().told == 0


def test_a_lost_answer_to_a_commit_is_repeated_harmlessly(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, lost = Database._once, []

    def lose_answer(self: Database, work: object, mode: str) -> object:
        result = once(self, work, mode)  # type: ignore[arg-type]
        if mode == "write" and len(lost) % 2 == 0:
            lost.append(True)
            refused = sqlite3.OperationalError("connection lost")
            refused.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise OperationalError("COMMIT", None, refused)
        lost.append(False)
        return result

    monkeypatch.setattr(Database, "_once", lose_answer)
    with open_store(url, commit_every=0) as store:
        study = store.open(RECORD.name, write=True)
        for seq in range(9):
            study.save_turn(turn(seq))
        study.add_event("info", "note", "once")
        assert same(study.turns(), turns(9))
        assert [event.text for event in study.events()] == ["once"]
        assert study.summary().told == 8
    assert any(lost)


# --- full ---------------------------------------------------------------------------------------------------------


def save_all(study: StudyStore, numbers: Iterator[int]) -> None:
    for seq in numbers:
        study.save_turn(turn(seq))


def test_a_full_disk_is_named_and_loses_nothing(url: str) -> None:
    limit = {"pages": 40}

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={limit['pages']}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", configure)
    try:
        store = open_store(url, commit_every=0, retry_seconds=0.3)
        study = store.open(RECORD.name, write=True)
        numbers = itertools.count()
        with pytest.raises(StoreUnavailableError, match=r"disk of .*study\.db is full.*Free some space"):
            save_all(study, numbers)
        saved = next(numbers) - 1
        assert same(store.open(RECORD.name).turns(), turns(saved))
        with pytest.raises(StoreUnavailableError, match="full"):
            store.close()
        limit["pages"] = 10_000
        with open_store(url) as later:
            study = later.open(RECORD.name, write=True, steal=True)
            study.save_turn(turn(saved))
            assert same(study.turns(), turns(saved + 1))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", configure)


# --- damaged ------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named(url: str) -> None:
    with open_store(url) as store:
        study = store.open(RECORD.name, write=True)
        for seq in range(300):
            study.save_turn(turn(seq))
    content = bytearray(file_of(url).read_bytes())
    for page in range(4096 * 3, len(content), 4096):
        content[page : page + 100] = b"\xff" * 100
    file_of(url).write_bytes(content)
    with open_store(url) as store, pytest.raises(SchemaError, match=r"study\.db is damaged.*backup"):
        list(store.open(RECORD.name).turns())


def test_a_file_that_vanishes_is_named(url: str) -> None:
    with open_store(url, commit_every=0, retry_seconds=0.1) as store:
        study = store.open(RECORD.name, write=True)
        with sqlite3.connect(file_of(url)) as other:
            other.execute("DROP TABLE evomerge_journal")
        other.close()
        with pytest.raises(StoreError, match="no such table"):
            study.save_turn(turn(0))
        study.abandon()


def test_an_unusable_place_is_named(tmp_path: Path) -> None:
    with (
        open_store(f"sqlite:///{tmp_path}/no/such/folder/study.db", retry_seconds=0.1) as store,
        pytest.raises(StoreUnavailableError, match=r"no/such/folder.*unable to open"),
    ):
        store.create(RECORD)


# --- away ---------------------------------------------------------------------------------------------------------


class Server(Protocol):
    """The fixture ``postgres_server``."""

    def url(self, database: str) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@pytest.mark.pg
def test_a_server_that_comes_back_is_waited_for(postgres_server: Server) -> None:
    with open_store(postgres_server.url("postgres"), commit_every=0) as store, ThreadPoolExecutor() as threads:
        store.create(RECORD)
        study = store.open(RECORD.name, write=True)
        working = threads.submit(lambda: [study.save_turn(turn(seq)) for seq in range(2_000)])
        for _ in range(2):
            time.sleep(0.2)
            postgres_server.stop()
            time.sleep(0.3)
            postgres_server.start()
        working.result()
        assert same(store.open(RECORD.name).turns(), turns(2_000))


@pytest.mark.pg
def test_a_server_that_stays_away_ends_the_run_and_loses_nothing(postgres_server: Server) -> None:
    url = postgres_server.url("postgres")
    store = open_store(url, commit_every=FOREVER, retry_seconds=0.5)
    store.create(RECORD)
    study = store.open(RECORD.name, write=True)
    for seq in range(4):
        study.save_turn(turn(seq))
    study.flush()
    postgres_server.stop()
    study.save_turn(turn(4))
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"cannot be used.*resume"):
        study.flush()
    assert time.monotonic() - began >= 0.3
    with pytest.raises(StoreUnavailableError):
        store.close()
    with open_store(url, retry_seconds=0.1) as newcomer, pytest.raises(StoreUnavailableError, match="cannot be used"):
        newcomer.open(RECORD.name)
    postgres_server.start()
    with open_store(url) as later:
        study = later.open(RECORD.name, write=True, steal=True)
        assert same(study.turns(), turns(4))
        study.save_turn(turn(4))
        assert same(study.turns(), turns(5))
