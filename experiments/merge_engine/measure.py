"""Time, processor time and memory of a command and all its children.

    python experiments/merge_engine/measure.py [--out DIR] [--json FILE] -- COMMAND ...

Memory is sampled from /proc every 20 ms and summed over the processes: anonymous pages (what a program really holds),
pages of mapped files (which the kernel may drop at any time) and all resident ones. Pages that forked processes share
count for each of them. Processor time is the kernel's, of the command and of every child it waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

INTERVAL = 0.02
FIELDS = {"RssAnon": "anon_bytes", "RssFile": "file_bytes", "VmRSS": "rss_bytes"}


@dataclass(frozen=True)
class Measurement:
    """One run; seconds and bytes. The three peaks of memory need not coincide; ``tail`` is what was printed last."""

    command: list[str]
    exit_code: int
    wall: float
    user: float
    system: float
    anon_bytes: int
    file_bytes: int
    rss_bytes: int
    samples: int
    output_bytes: int
    load_before: float
    tail: str

    @property
    def cpu(self) -> float:
        """Seconds of processor time."""
        return self.user + self.system


def sample(root: int, done: threading.Event, peaks: dict[str, int]) -> None:
    """Raise ``peaks`` to the greatest sums over the process tree, until ``done``."""
    while True:
        found = [memory(pid) for pid in descendants(root)]
        for name, key in FIELDS.items():
            peaks[key] = max(peaks[key], sum(sizes.get(name, 0) for sizes in found))
        peaks["samples"] += 1
        if done.wait(INTERVAL):
            return


def descendants(root: int) -> list[int]:
    """The process and all below it, as far as they still live."""
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended meanwhile
            continue
    return found


def memory(pid: int) -> dict[str, int]:
    """Bytes by field; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: 1024 * int(value.split()[0]) for name, value in pairs if name in FIELDS}


def size_of(folder: Path | None) -> int:
    return 0 if folder is None else sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(command: Sequence[str], out: Path | None = None, env: Mapping[str, str] | None = None) -> Measurement:
    """Run a command to its end. What it writes into ``out`` is counted, not deleted."""
    load = os.getloadavg()[0]
    peaks = dict.fromkeys([*FIELDS.values(), "samples"], 0)
    done = threading.Event()
    with tempfile.TemporaryFile("w+") as printed:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env={**os.environ, **(env or {})},
            process_group=0,
        )
        sampler = threading.Thread(target=sample, args=(child.pid, done, peaks))
        sampler.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - begun
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            done.set()
            sampler.join()
        child.returncode = os.waitstatus_to_exitcode(status)  # it was waited for behind the object's back
        printed.seek(0)
        tail = printed.read()[-2000:]
    return Measurement(
        command=list(command),
        exit_code=child.returncode,
        wall=wall,
        user=used.ru_utime,
        system=used.ru_stime,
        output_bytes=size_of(out),
        load_before=load,
        tail=tail,
        **peaks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder that the command writes")
    parser.add_argument("--json", type=Path, help="where to write the result, else it is printed")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    found = measure(given.command, given.out)
    text = json.dumps(asdict(found), indent=1)
    if given.json:
        given.json.write_text(text + "\n")
    else:
        print(text)
    sys.exit(found.exit_code)


if __name__ == "__main__":
    main()
