"""MAP-Elites from the two pre-trained digit specialists, on two grids; results as one JSON.

    python experiments/map_elites_digits/run.py results.json [--seeds 5] [--grids labels] [--children 3000 10000]

The grids are the published baseline's, accuracy on even and on odd digits (``labels``, arXiv 2508.16204), and one that
says nothing of skills, accuracy on items in even and odd ``places``. Test accuracy is that of the model with the best
train accuracy (the first among equals). Runs that the JSON holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from sklearn.datasets import load_digits

from evomerge import config
from evomerge.replay import restore
from evomerge.store import open_store
from evomerge.study.drive import begin, create
from evomerge.study.record import strategy_of

sys.path.append(str(Path(__file__).parents[1] / "m2n2_digits"))
from pool import write_pool

TRAIN = 1437


def descriptors(grid: str) -> list[list[str]]:
    """The items of each axis."""
    if grid == "places":
        return [["0::2"], ["1::2"]]
    labels = load_digits().target[:TRAIN]
    return [[str(at) for at in range(TRAIN) if labels[at] % 2 == odd] for odd in (0, 1)]


def run(grid: str, seed: int, children: int) -> dict[str, Any]:
    """One study, and what came of it."""
    with tempfile.TemporaryDirectory() as name, open_store(f"memory://{uuid4().hex}") as store:
        folder = Path(name)
        write_pool(folder / "seeds")
        study = yaml.safe_load((Path(__file__).parents[1] / "m2n2_digits" / "from_seeds.yaml").read_text())
        study |= {"seed": seed, "strategy": {"name": "map_elites", "descriptors": descriptors(grid)}}
        study["budget"]["evaluations"] = children + 2
        study["executor"]["threads"] = 1
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        began = time.monotonic()
        setup = create(config.read(folder / "study.yaml"))
        outcome = begin(setup, store)
        seconds = time.monotonic() - began
        opened = store.open(study["study"])
        (train,) = (one.score for one in opened.scores("search", [outcome.final]))
        (test,) = (one.score for one in opened.scores("report"))
        strategy = strategy_of(setup.settings, setup.problem)
        state, _ = restore(strategy, opened)
        return {
            "grid": grid,
            "seed": seed,
            "children": children,
            "train": train["accuracy"],
            "test": test["accuracy"],
            "seconds": round(seconds, 1),
            **strategy.diagnostics(state),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--children", type=int, nargs="+", default=[3000, 10_000])
    parser.add_argument("--grids", nargs="+", choices=["labels", "places"], default=["labels"])
    arguments = parser.parse_args()
    rows = json.loads(arguments.results.read_text()) if arguments.results.exists() else []
    done = {(row["grid"], row["seed"], row["children"]) for row in rows}
    for children in arguments.children:
        for seed in range(42, 42 + arguments.seeds):
            for grid in arguments.grids:
                if (grid, seed, children) not in done:
                    rows.append(run(grid, seed, children))
                    print(rows[-1], flush=True)
                    arguments.results.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
