"""Who may take a study over."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evomerge.errors import LeaseError
from evomerge.store import open_store
from evomerge.store.lease import Owner, birth, is_dead, reason_to_take
from evomerge.store.port import Lease
from evomerge.testing.stores.samples import RECORD


def dead_process() -> tuple[int, str]:
    """Pid and birth of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = birth(process.pid)
    process.communicate()
    assert born
    return process.pid, born


def test_only_what_is_known_to_be_dead_is_dead() -> None:
    me, (pid, born) = Owner.new(), dead_process()
    assert not is_dead(me.host, me.pid, me.birth)
    assert is_dead(me.host, pid, born)
    assert not is_dead("elsewhere", pid, born)
    assert not is_dead(me.host, pid, "")


def test_a_reused_pid_is_another_process() -> None:
    me, (_, born) = Owner.new(), dead_process()
    assert is_dead(me.host, os.getpid(), born)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells boots and containers apart")
def test_nothing_is_known_of_another_boot_or_container() -> None:
    me, (pid, born) = Owner.new(), dead_process()
    boot, space, start = born.replace("|", " ").split()
    assert not is_dead(me.host, pid, f"{boot} pid:[1]|{start}")
    assert not is_dead(me.host, pid, f"0000 {space}|{start}")


def test_a_process_that_was_killed_and_not_yet_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = birth(process.pid)
    assert born
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(Owner.new().host, process.pid, born)
    process.communicate()


def test_reasons() -> None:
    me, (pid, born) = Owner.new(), dead_process()
    alive, dead = (Lease("token", me.host, number, 0.0, 100.0, 160.0) for number in (me.pid, pid))
    assert reason_to_take(alive, me.birth, 159.0, steal=False) is None
    assert reason_to_take(alive, me.birth, 159.0, steal=True)
    assert "silent for 61 s" in str(reason_to_take(alive, me.birth, 161.0, steal=False))
    assert "dead" in str(reason_to_take(dead, born, 101.0, steal=False))


@pytest.mark.parametrize("backend", ["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.pg)])
def test_of_many_drivers_one_wins(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    urls = {"memory": f"memory://{tmp_path}", "sqlite": f"sqlite:///{tmp_path}/study.db"}
    url = urls[backend] if backend in urls else request.getfixturevalue("postgres_url")
    with open_store(url) as store:
        store.create(RECORD)
    stores = [open_store(url) for _ in range(6)]

    def drive(number: int) -> bool:
        try:
            stores[number].open(RECORD.name, write=True)
        except LeaseError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(drive, range(6))) == 1
    for store in stores:
        store.close()
