"""Every method, several seeds, on the unseen target; prints the table. What is in results.json is not run again.

python experiments/evo_merging/run.py [--adapters experiments/evo_merging/pool] [--seeds 3] [--url URL]

With --url the adapters stay with a server (server.yaml) and only recipes and losses travel.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from study import FITNESS, METHODS, pool, study

from evomerge import config
from evomerge.store import open_store
from evomerge.study.drive import begin, create

HERE = Path(__file__).parent


def run(method: str, seed: int, where: dict[str, Any], members: int) -> dict[str, float]:
    """Losses of the chosen candidate by split, and how many evaluations the search had."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("texts.py", "fitness.py"):
            shutil.copy(HERE / file, folder)
        (folder / "study.yaml").write_text(yaml.safe_dump(study(method, seed, members, where)))
        with open_store(f"memory://{name}") as store:
            outcome = begin(create(config.read(folder / "study.yaml")), store)
            opened, found = store.open("evo-merging"), {}
            for split in ("search", "selection", "report"):
                one = next(opened.scores(split, [outcome.final or 0], items=False))
                found[split] = one.score["loss"] if one.score is not None else float("nan")
            return {**found, "evaluations": opened.summary().told}


def table(results: dict[str, dict[str, float]]) -> None:
    """Mean and standard error by method."""
    print("| method | evaluations | search | unseen texts (report) |\n|---|---|---|---|")
    for method in METHODS:
        mine = [value for key, value in results.items() if key.rpartition(":")[0] == method]
        if mine:
            shown = [_shown([one[split] for one in mine]) for split in ("search", "report")]
            print(f"| {method} | {mine[0]['evaluations']:.0f} | {' | '.join(shown)} |")


def _shown(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=Path, default=HERE / "pool")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--url")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    here = pool(given.adapters.resolve())
    where: dict[str, Any] = {"pool": here, "fitness": FITNESS, "executor": {"threads": 1}}
    if given.url:
        served = {"name": "pool_server", "url": given.url}
        where = {"fitness": served, "executor": {"kind": "threads", "workers": 4}}
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    for seed in given.seeds:
        for method in given.methods:
            key = f"{method}:{seed}"
            if key not in results:
                results[key] = run(method, seed, where, len(here["members"]))
                given.results.write_text(json.dumps(results, indent=1) + "\n")
                print(key, results[key], file=sys.stderr, flush=True)
    table(results)


if __name__ == "__main__":
    main()
