"""Resident memory of the whole process over a from-scratch study of 50,000 evaluations in SQLite.

    python experiments/m2n2_digits/memory.py [--evaluations 50000]

Read from the kernel (/proc/self/statm) at every progress report; the cache of recent vectors has a fixed size (64 MB),
which it reaches first.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from pool import study_text, write_pool

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import Watch, begin, create


def resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=50_000)
    given = parser.parse_args()
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder)
        text = study_text("scratch_m2n2", 1, given.evaluations, folder, losses=True, threads=2)
        (folder / "study.yaml").write_text(text)
        with open_store(f"sqlite:///{folder}/study.db") as store:
            watch = Watch(on_progress=lambda progress: seen.append((progress.told, resident())))
            begin(create(config.read(folder / "study.yaml")), store, watch)
        size = sum(path.stat().st_size for path in folder.glob("study.db*")) / 1e6
    step = given.evaluations // 10
    for goal in [1000, *range(step, given.evaluations, step), given.evaluations - 500]:
        told, megabytes = min(seen, key=lambda one: abs(one[0] - goal))
        print(f"{told:7,} evaluations  {megabytes:6.0f} MB resident")
    print(f"database {size:.0f} MB, per-item losses included")


if __name__ == "__main__":
    main()
