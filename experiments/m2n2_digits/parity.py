"""The published digits experiment: every variant, ten seeds, each a whole study in SQLite; results as one JSON.

    python experiments/m2n2_digits/parity.py results.json [--variants m2n2 ga ...] [--seeds 10] [--processes 2]

Test accuracy is that of the archive's best member on the search items (the first among equals), as published. Finished
runs are kept in the JSON and not run again. The databases are large and thrown away unless ``--keep FOLDER`` is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from pool import VARIANTS, study_text, write_pool

from evomerge import config
from evomerge.executor.port import Task
from evomerge.lineage import ancestry
from evomerge.store import open_store
from evomerge.store.port import StudyStore
from evomerge.study.drive import begin, create, factory_of

CHECKPOINTS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 40_000, 50_000)


def archives(study: StudyStore, seeds: int) -> dict[int, list[int]]:
    """Members of the archive, in slot order, after so many children."""
    changes: dict[int, list[tuple[int, int | None]]] = {}
    for seq, change in study.changes():
        changes.setdefault(seq, []).append((change.slot, change.number))
    slots: dict[int, int | None] = {}
    found, told = {}, 0
    for turn in study.turns(items=False):
        slots.update(changes.get(turn.seq, ()))
        told += len(turn.told)
        if turn.told and told - seeds in CHECKPOINTS:
            found[told - seeds] = [number for _, number in sorted(slots.items()) if number is not None]
    return found


def curve(study: StudyStore, evaluator: Any, seeds: int) -> list[dict[str, float]]:
    """Train and test accuracy of the archive's best member and the archive's coverage at each checkpoint."""
    rows, cached = [], frozenset[str]()
    for children, members in archives(study, seeds).items():
        scored = {e.candidate.number: e for e in study.scores("search", members)}
        items = np.stack([scored[number].score.items for number in members])
        best = members[int(items.sum(axis=1).argmax())]
        candidate = scored[best].candidate
        task = Task(candidate, "report")
        score = evaluator(task, ())
        if not hasattr(score, "objectives"):  # the evaluator wants the ancestry
            cached = score.cached
            score = evaluator(task, ancestry(candidate.recipe, cached, study.recipes))
        rows.append(
            {
                "children": children,
                "train": float(items.sum(axis=1).max()) / items.shape[1],
                "test": score["accuracy"],
                "coverage": float(items.any(axis=0).mean()),
            }
        )
    return rows


def run(variant: str, seed: int, keep: str | None, budget: int | None) -> dict[str, Any]:
    """One study, and what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder)
        children = budget or (50_000 if variant.startswith("scratch") else 10_000)
        text = study_text(variant, seed, children + 2, folder)
        (folder / "study.yaml").write_text(text)
        setup = create(config.read(folder / "study.yaml"))
        database = Path(keep or name) / f"{variant}-{seed}.db"
        with open_store(f"sqlite:///{database}") as store:
            begun = time.perf_counter()
            begin(setup, store)
            seconds = time.perf_counter() - begun
            study = store.open(setup.record.name)
            rows = curve(study, factory_of(setup)(), 2)
    return {"variant": variant, "seed": seed, "seconds": seconds, "curve": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--budget", type=int, help="children; default 10,000 from seeds, 50,000 from scratch")
    parser.add_argument("--keep", help="folder for the databases")
    given = parser.parse_args()
    results = json.loads(given.results.read_text()) if given.results.exists() else []
    done = {(one["variant"], one["seed"]) for one in results}
    todo = [(v, 100 + s) for v in given.variants for s in range(given.seeds) if (v, 100 + s) not in done]
    with ProcessPoolExecutor(given.processes) as pool:
        futures = [pool.submit(run, variant, seed, given.keep, given.budget) for variant, seed in todo]
        for future in as_completed(futures):
            one = future.result()
            results.append(one)
            given.results.write_text(json.dumps(sorted(results, key=lambda r: (r["variant"], r["seed"]))))
            last = one["curve"][-1]
            print(
                f"{one['variant']:20} {one['seed']} train {last['train']:.4f} test {last['test']:.4f} "
                f"coverage {last['coverage']:.4f} {one['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
