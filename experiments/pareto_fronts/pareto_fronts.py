"""Hypervolume of the fronts that strategies find with equal evaluations: two and three tasks, 2 to 4 coefficients.

python experiments/pareto_fronts/pareto_fronts.py [--seeds 10] [--from-results]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from evomerge import config
from evomerge.pareto import front, hypervolume
from evomerge.store import open_store
from evomerge.study.drive import begin, create
from evomerge_fitness.mlp import save_mlp

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from tasks import TASKS, digits, members  # noqa: E402  # this experiment's fitness

SIZES = (64, 32, 10)
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {},
    "nsga2": {},
    "nsga3": {},
    "map": {},
}
LAYERS = {"first": ["layers.0.*"], "second": ["layers.1.*"]}
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, list[str]]]] = {
    "2 tasks, 2 coefficients": ("two", ("odd", "even"), {}),
    "2 tasks, 4 coefficients": ("two", ("odd", "even"), LAYERS),
    "3 tasks, 3 coefficients": ("three", ("first", "middle", "last"), {}),
}
"""The fitness's function, the experts, which are named like the objectives, and the parameter groups."""
AT = (40, 80, 120)
TRAINED_ON = slice(0, 1000)  # the items of the search split


# --- the pool ---------------------------------------------------------------------------------------------------------


def network() -> torch.nn.Sequential:
    """The layers of an evomerge MLP."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(*SIZES[:2]), torch.nn.ReLU(), torch.nn.Linear(*SIZES[1:]))


def train(net: torch.nn.Sequential, chosen: torch.Tensor, steps: int) -> None:
    """Full-batch Adam on the search split's chosen items."""
    x, y = (part[TRAINED_ON][chosen[TRAINED_ON]] for part in digits())
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def save(net: torch.nn.Sequential, folder: Path) -> None:
    """As a checkpoint folder; torch's weights are outputs x inputs, evomerge's the other way round."""
    layers = [one for one in net if isinstance(one, torch.nn.Linear)]
    tensors = {}
    for at, layer in enumerate(layers):
        tensors[f"layers.{at}.weight"] = layer.weight.detach().T.contiguous()
        tensors[f"layers.{at}.bias"] = layer.bias.detach().contiguous()
    save_mlp(folder, tensors, SIZES)


def write_pool(folder: Path) -> None:
    """A base that knows all digits a little, and from it one expert a task."""
    base = network()
    train(base, torch.ones(len(digits()[1]), dtype=torch.bool), 20)
    save(base, folder / "base")
    for task in TASKS:
        expert = network()
        expert.load_state_dict(base.state_dict())
        train(expert, members(task), 60)
        save(expert, folder / task)


# --- one study --------------------------------------------------------------------------------------------------------


def run(folder: Path, case: str, strategy: str, seed: int) -> dict[str, Any]:
    """Results on the search split in the order told, and of the final front on the other items."""
    function, names, groups = CASES[case]
    study = yaml.safe_load((HERE / "study.yaml").read_text())
    study["seed"] = seed
    study["pool"]["members"] = {name: f"models/{name}" for name in names}
    study["pool"]["groups"] = groups
    study["fitness"] |= {"function": f"tasks.py:{function}", "objectives": dict.fromkeys(names, "maximize")}
    study["strategy"]["name"] = strategy
    study["strategy"]["space"]["per_group"] = bool(groups)
    study["strategy"] |= STRATEGIES[strategy]
    if strategy == "random":
        study["strategy"]["hall_of_fame"] = 120  # its finalists are all, not only a front
        study["finalists"] = 120
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    with open_store(f"memory://{case}-{strategy}-{seed}") as store:
        begin(create(config.read(folder / "study.yaml")), store)
        opened = store.open("pareto-fronts")
        told = [one for turn in opened.turns(items=False) for one in turn.told]
        found = {one.candidate.number: one.score for one in told if one.score is not None}
        other = {one.candidate.number: one.score for one in opened.scores("selection") if one.score is not None}
    gains = np.array([[score[name] for name in names] for score in found.values()])
    numbers = np.array(list(found))[front(gains)].tolist()
    held_out = [[round(other[number][name], 4) for name in names] for number in numbers if number in other]
    return {"case": case, "strategy": strategy, "seed": seed, "gains": gains.round(4).tolist(), "held_out": held_out}


# --- table and figure -------------------------------------------------------------------------------------------------


def volume(gains: Any) -> float:
    """Hypervolume above accuracy 0."""
    points = np.asarray(gains, dtype=np.float64)
    return hypervolume(points, np.zeros(points.shape[1]))


def best_known(results: list[dict[str, Any]], case: str, what: str) -> float:
    """The hypervolume of what all runs of a case found together."""
    return volume([row for one in results if one["case"] == case for row in one[what]])


def cell(values: list[float]) -> str:
    """Mean and standard error, in %."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def table(results: list[dict[str, Any]]) -> str:
    """Share of the best known hypervolume after so many evaluations, and on items that were not searched."""
    lines = ["| case | strategy |" + "".join(f" {n} evaluations |" for n in AT) + " front on other items |"]
    lines.append("|---|---|" + "---|" * (len(AT) + 1))
    for case in CASES:
        best, best_other = best_known(results, case, "gains"), best_known(results, case, "held_out")
        for strategy in STRATEGIES:
            runs = [one for one in results if (one["case"], one["strategy"]) == (case, strategy)]
            cells = [cell([volume(one["gains"][:n]) / best for one in runs]) for n in AT]
            cells.append(cell([volume(one["held_out"]) / best_other for one in runs]))
            lines.append(f"| {case} | {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Curves of each case, and the fronts of one seed with two objectives."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from evomerge.history.plot import COLOURS, INK

    figure = Figure(figsize=(13.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(CASES) + 1)
    for axes, case in zip(panels, CASES, strict=False):
        best = best_known(results, case, "gains")
        for colour, strategy in zip(COLOURS, STRATEGIES, strict=False):
            runs = [one for one in results if (one["case"], one["strategy"]) == (case, strategy)]
            rows = np.array([[volume(one["gains"][: n + 1]) / best for n in range(max(AT))] for one in runs])
            mean, error = rows.mean(axis=0), rows.std(axis=0, ddof=1) / len(rows) ** 0.5
            at = np.arange(1, max(AT) + 1)
            axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.18, lw=0)
            axes.plot(at, mean, lw=1.7, color=colour, label=strategy)
        axes.set_title(case, loc="left", fontsize=10.5, color=INK)
        axes.set_xlabel("evaluations")
        axes.set_ylim(0.0 if case.startswith("3") else 0.8, 1.005)
    panels[0].set_ylabel("share of the best known hypervolume")
    panels[0].legend(frameon=False, fontsize=9, loc="lower right")
    _fronts(panels[-1], [one for one in results if one["case"] == next(iter(CASES)) and one["seed"] == 0])
    for axes in panels:
        axes.grid(color="#e6e8ea", lw=0.8)
        axes.tick_params(length=0, labelsize=9)
        for side in axes.spines.values():
            side.set_visible(False)
    figure.savefig(path, dpi=150)


def _fronts(axes: Any, runs: list[Mapping[str, Any]]) -> None:
    """Fronts of the first seed as staircases."""
    from evomerge.history.plot import COLOURS, INK

    for colour, one in zip(COLOURS, runs, strict=False):
        points = np.array(one["gains"])
        points = points[front(points)]
        points = points[np.argsort(points[:, 0])]
        axes.step(*points.T, where="pre", lw=1.2, color=colour)
        axes.plot(*points.T, ".", ms=6, color=colour, label=one["strategy"])
    axes.set_title("fronts of seed 0, 2 coefficients", loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel("accuracy on odd digits")
    axes.set_ylabel("accuracy on even digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--from-results", action="store_true", help="only the table and the figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.from_results:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pool(folder / "models")
            shutil.copy(HERE / "tasks.py", folder)
            results = [
                run(folder, case, strategy, seed)
                for case in CASES
                for strategy in STRATEGIES
                for seed in range(given.seeds)
            ]
        (HERE / "results.json").write_text(json.dumps(results, separators=(",", ":")) + "\n")
    results = json.loads((HERE / "results.json").read_text())
    print(table(results))
    draw(results, HERE / "pareto_fronts.png")


if __name__ == "__main__":
    main()
