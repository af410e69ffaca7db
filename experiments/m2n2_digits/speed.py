"""Seconds per 1,000 evaluations of whole studies, everything persisted to SQLite, beside the bare forward pass.

python experiments/m2n2_digits/speed.py [--evaluations 3000] [--rounds 3] [--threads 2] [--losses]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from pool import study_text, write_pool

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create


def run(variant: str, budget: int, folder: Path, threads: int, losses: bool) -> float:
    """Seconds per 1,000 evaluations of a study from nothing to finished."""
    file = folder / "study.yaml"
    file.write_text(study_text(variant, 1, budget, folder, losses=losses, threads=threads))
    database = folder / f"{variant}-{time.monotonic_ns()}.db"
    setup = create(config.read(file))
    with open_store(f"sqlite:///{database}") as store:
        begun = time.perf_counter()
        begin(setup, store)
        taken = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in folder.glob(database.name + "*"))
    print(
        f"  {variant:22} {1000 * taken / budget:6.3f} s per 1,000   {size / budget:7.0f} bytes per evaluation on disk"
    )
    for path in folder.glob(database.name + "*"):
        path.unlink()
    return 1000 * taken / budget


def forward(threads: int, rounds: int = 2000) -> float:
    """Seconds per 1,000 bare forward passes: two matrix products and the activation, on preallocated buffers."""
    torch.set_num_threads(threads)
    x, w1, w2 = torch.rand(1437, 65), torch.randn(65, 256) * 0.1, torch.randn(10, 256) * 0.1
    hidden, logits = torch.empty(1437, 256), torch.empty(10, 1437)
    with torch.inference_mode():
        begun = time.perf_counter()
        for _ in range(rounds):
            torch.mm(x, w1, out=hidden)
            torch.relu_(hidden)
            torch.mm(w2, hidden.t(), out=logits)
        return 1000 * (time.perf_counter() - begun) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--losses", action="store_true", help="compute and keep per-item losses too")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {given.threads} torch threads, {given.evaluations} evaluations a run")
    figures: dict[str, list[float]] = {"forward": [], "m2n2": [], "scratch_m2n2": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder)
        for _ in range(given.rounds):  # in turn, so that a noisy machine disturbs all alike
            figures["forward"].append(forward(given.threads))
            for variant in ("m2n2", "scratch_m2n2"):
                figures[variant].append(run(variant, given.evaluations, folder, given.threads, given.losses))
    for what, values in figures.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{what:14} median {middle:.3f} s per 1,000 (min {low:.3f}, max {high:.3f})")


if __name__ == "__main__":
    main()
