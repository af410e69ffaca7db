"""What the platform adds to a 100 ms evaluation, at candidate 100 and at candidate 20,000.

    python experiments/platform_overhead/overhead.py [--budget 20000] [--window 100] [--rounds 3]

M2N2 over 1,437 items, everything persisted to SQLite, inline and on two Ray workers. The fitness takes 100 ms in the
first and the last window and no time between. Overhead per candidate = (wall x workers - time inside the fitness) /
candidates of the window, on the workers' own clocks (one machine, one monotonic clock).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from slowfit import windows

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create
from evomerge.testing.checkpoints import save_checkpoint

STUDY = """
study: overhead
pool: {{members: {{template: template}}}}
fitness:
  {{name: callable, function: "slowfit.py:score", objectives: {{accuracy: maximize}}, per_item: true, gets: recipe}}
splits: {{search: "0:1437"}}
strategy: {{name: m2n2, start: scratch, mutation: 0.01}}
window: {window}
budget: {{evaluations: {budget}}}
executor: {executor}
"""
EXECUTORS = {"inline": (1, "{kind: inline}"), "ray": (2, "{kind: ray, workers: 2}")}


def run(kind: str, budget: int, length: int) -> list[float]:
    """Milliseconds of overhead per candidate in the first and in the last window."""
    workers, executor = EXECUTORS[kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(Path(__file__).with_name("slowfit.py"), folder)
        (folder / "windows").write_text(f"{budget} {length}")
        save_checkpoint(folder / "template" / "model.safetensors", {"w": np.zeros((4, 4), np.float32)})
        (folder / "study.yaml").write_text(
            STUDY.format(budget=budget, executor=executor, window=1 if workers == 1 else 8)
        )
        with open_store(f"sqlite:///{folder}/study.db") as store:
            begin(create(config.read(folder / "study.yaml")), store)
        lines = [line.split() for log in folder.glob("log-*") for line in log.read_text().splitlines()]
    ran = {int(number): (float(begun), float(ended)) for number, begun, ended in lines}
    found = []
    for window in windows(budget, length):
        times = np.array([ran[number] for number in window])
        wall = times[:, 1].max() - times[:, 0].min()
        found.append(1000 * (wall * workers - (times[:, 1] - times[:, 0]).sum()) / length)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores; milliseconds added to a 100 ms evaluation, median of {given.rounds} (min to max)")
    for kind in EXECUTORS:
        rounds = [run(kind, given.budget, given.window) for _ in range(given.rounds)]
        for where, values in zip(
            ("candidates from 100", f"candidates to {given.budget}"), zip(*rounds, strict=True), strict=True
        ):
            print(
                f"{kind:7} {where:24} {statistics.median(values):6.2f} ({min(values):.2f} to {max(values):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
