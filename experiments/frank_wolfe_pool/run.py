"""Does Frank-Wolfe stay flat when experts of no use join the pool, while task arithmetic collapses?

    python run.py [--seeds 3] [--work FOLDER] [--evaluations 200]

trains the experts of each seed (see experts.py), runs every method over pools of 4, 12 and 20 and writes results.json
and accuracy.png beside this file. Studies are study.yaml with other pools and strategies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import yaml
from experts import MEMBERS, POOLS, write_pool

from evomerge import config
from evomerge.candidate import Candidate, Recipe, Score, Segment
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Task
from evomerge.store import open_store
from evomerge.study.drive import begin, create

HERE = Path(__file__).parent

STRATEGIES: dict[str, dict[str, Any]] = {
    "Frank-Wolfe, probes, hard": {"name": "frank_wolfe", "oracle": "probes", "mode": "hard"},
    "Frank-Wolfe, probes, hard, errors: 0": {"name": "frank_wolfe", "oracle": "probes", "errors": 0, "iterations": 50},
    "Frank-Wolfe, probes, soft": {"name": "frank_wolfe", "oracle": "probes", "mode": "soft"},
    "Frank-Wolfe, gradients, hard": {"name": "frank_wolfe", "oracle": "slopes", "mode": "hard"},
    "Frank-Wolfe, gradients, soft": {"name": "frank_wolfe", "oracle": "slopes", "mode": "soft"},
    "Frank-Wolfe, gradients, layer-wise": {"name": "frank_wolfe", "oracle": "slopes", "per_group": True},
    "random search on the simplex": {"name": "random", "space": {"kind": "simplex", "per_group": False}},
}

FIXED: dict[str, dict[str, Any]] = {
    "the base alone": {"operator": "linear", "value": 1.0},
    "task arithmetic, 0.3": {"operator": "task_arithmetic", "value": 0.3},
    "uniform average": {"operator": "linear", "value": None},
    "TIES, density 0.2": {"operator": "ties", "value": 1.0, "others": 0.2, "lambda": 1.0},
}


def study_of(folder: Path, size: int, strategy: dict[str, Any], evaluations: int) -> dict[str, Any]:
    """study.yaml with the first members of the pool and another strategy."""
    study: dict[str, Any] = yaml.safe_load((HERE / "study.yaml").read_text())
    study["pool"] = {"base": str(folder / "base"), "members": {name: str(folder / name) for name in MEMBERS[:size]}}
    if strategy.get("per_group"):
        study["pool"]["grouping"] = "layer"
    study["fitness"]["data"] = str(folder / "target.npz")
    study["strategy"] = strategy
    study["budget"] = {"evaluations": evaluations}
    return study


def searched(folder: Path, study: dict[str, Any]) -> dict[str, float]:
    """Accuracy in % of the study's winner on the report split, and what the search took."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    with open_store(f"memory://{uuid4().hex}") as store:
        outcome = begin(create(config.read(path)), store)
        opened = store.open(study["study"])
        final = outcome.final or 0
        (report,) = opened.scores("report", [final], items=False)
        items = opened.items_asked(400) / 400
    return {"accuracy": accuracy(report.score), "evaluations": items}


def accuracy(score: Score | None) -> float:
    return float("nan") if score is None else 100 * score["accuracy"]


def fixed(folder: Path, size: int, how: dict[str, Any]) -> dict[str, float]:
    """Accuracy in % of a merge without any search."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study_of(folder, size, {"name": "random"}, 1)))
    study = config.read(path).settings
    evaluator = EvaluatorFactory(folder, study.pool, study.merge, study.fitness, study.splits)()
    members = tuple(f"pool:{name}" for name in MEMBERS[:size])
    values = (how["value"] or 1 / size,) * size
    if "others" in how:
        values += (how["others"],) * size + (how["lambda"],)
    sources = members if how["operator"] == "linear" else ("pool:base", *members)
    if how["operator"] == "linear" and how["value"] is not None:
        sources, values = ("pool:base",), (how["value"],)
    length = 784 * 100 + 100 + 100 * 40 + 40
    recipe = Recipe(how["operator"], sources, (Segment("all", 0, length, values),))
    score = evaluator(Task(Candidate(0, recipe), "report"))
    return {"accuracy": accuracy(score if isinstance(score, Score) else None), "evaluations": 0.0}


def table(results: list[dict[str, Any]]) -> None:
    """Mean and standard error over the seeds."""
    print("\n| method | " + " | ".join(f"pool of {size}" for size in POOLS) + " | evaluations at 20 |")
    print("|---|" + "---|" * (len(POOLS) + 1))
    for name in (*STRATEGIES, *FIXED):
        cells = []
        for size in POOLS:
            found = [one["accuracy"] for one in results if one["method"] == name and one["pool"] == size]
            error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
            cells.append(f"{statistics.mean(found):.1f} ± {error:.1f}")
        spent = [one["evaluations"] for one in results if one["method"] == name and one["pool"] == POOLS[-1]]
        print(f"| {name} | " + " | ".join(cells) + f" | {statistics.mean(spent):.0f} |")


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """Accuracy by size of the pool, a line per method."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for name in (*STRATEGIES, *FIXED):
        means = [
            statistics.mean([one["accuracy"] for one in results if one["method"] == name and one["pool"] == size])
            for size in POOLS
        ]
        searching = name in STRATEGIES
        axes.plot(POOLS, means, marker="o" if searching else "s", ls="-" if searching else "--", label=name)
    axes.set(
        xticks=POOLS, xlabel="models in the pool, 4 of them of use", ylabel="accuracy on MNIST and Fashion-MNIST, %"
    )
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    drawing.legend(fontsize=8, loc="outside right upper")
    plt.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.seeds):
            folder = (given.work or Path(scratch)) / f"pool{seed}"
            if not (folder / "target.npz").exists():
                write_pool(folder, seed)
            for size in POOLS:
                runs = {name: fixed(folder, size, how) for name, how in FIXED.items()}
                for name, strategy in STRATEGIES.items():
                    runs[name] = searched(folder, study_of(folder, size, strategy, given.evaluations))
                results += [{"method": name, "pool": size, "seed": seed, **found} for name, found in runs.items()]
                print(seed, size, {name: round(found["accuracy"], 1) for name, found in runs.items()}, flush=True)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    table(results)
    figure(results, HERE / "accuracy.png")


if __name__ == "__main__":
    main()
