"""Who drives a study: the identity of a driver, and when its lease may pass to another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from evomerge.errors import LeaseError
from evomerge.store.port import Lease


@dataclass(frozen=True, slots=True)
class Owner:
    """One opening of a study by one process. ``birth`` tells the process from a later one with the same pid."""

    token: str
    host: str
    pid: int
    birth: str

    @classmethod
    def new(cls) -> Owner:
        """This process, with a token of its own."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex[:12], socket.gethostname(), pid, birth(pid) or "")


def birth(pid: int) -> str | None:
    """Where and when a process was born; ``None`` when there is no such process, ``""`` when that cannot be known."""
    if sys.platform == "linux":
        return _linux_birth(pid)
    try:
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return f"|{shown.stdout.strip()}" if shown.stdout.strip() else None


def _linux_birth(pid: int) -> str | None:
    """Boot, pid namespace and start tick: equal only for the very same process."""
    try:
        boot, space = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else ""
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()  # the command before ")" may hold spaces
    return None if state in "ZX" else f"{boot} {space}|{rest[18]}"


def is_dead(host: str, pid: int, born: str) -> bool:
    """Whether that process is known to be gone. Only of this host, boot and container can anything be known."""
    here = birth(os.getpid())
    if host != socket.gethostname() or not born or not here or here.partition("|")[0] != born.partition("|")[0]:
        return False
    found = birth(pid)
    return found is None or found not in ("", born)


def reason_to_take(lease: Lease, born: str, now: float, steal: bool) -> str | None:
    """Why the lease may pass to another driver, or ``None`` when it may not."""
    if is_dead(lease.host, lease.pid, born):
        return "that process is dead"
    if lease.expires <= now:
        return f"it has been silent for {now - lease.heartbeat:.0f} s"
    return "it was told to" if steal else None


def refusal(name: str, lease: Lease, now: float) -> LeaseError:
    """The error for a driver that comes second."""
    return LeaseError(
        f"study {name!r} is driven by {describe(lease)}, last heard of {max(0.0, now - lease.heartbeat):.0f} s ago "
        f"(owner {lease.owner}); stop that process, or wait until its lease runs out in "
        f"{max(0.0, lease.expires - now):.0f} s, or take the study over with --steal (steal=True)"
    )


def lost(name: str, lease: Lease | None) -> LeaseError:
    """The error for a driver whose study was taken over."""
    by = f"was taken over by {describe(lease)}" if lease else "was taken over and released by another driver"
    return LeaseError(
        f"study {name!r} {by}; this driver writes nothing more; what it had not saved is done again there"
    )


def describe(lease: Lease) -> str:
    """Process, host and since when, for people."""
    since = datetime.fromtimestamp(lease.since).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return f"process {lease.pid} on host {lease.host} since {since}"
