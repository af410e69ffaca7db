"""Which strategy needs how many evaluations? All on the same landscapes, ten of each, with equal budgets.

    python experiments/search_efficiency/compare.py --work DIR [--seeds 10] [--results FILE] [--figure FILE]
        [--only STRATEGY ...] [--landscapes WORD ...]

Small models are trained under DIR first, where they are not there. Every run is written to the results at once, and
not done again; the table and the figure are made of all runs in the results. Needs a folder with data/mnist and the
like for the images and data/merge_landscapes for the tables (EVOMERGE_SHARED); without it only the digits are done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from landscapes import SHARED, Landscape, digits, images, table
from report import complete, figure, report

from evomerge import plugins
from evomerge.settings import Choice
from evomerge.space import WeightSpace
from evomerge.stages import Stage

BUDGETS = {2: 100, 8: 300, 32: 600}
"""Evaluations by number of coefficients. (With 150 for 2, NGOpt chooses an optimizer that fails with numpy 2.4.)"""

Make = Callable[[WeightSpace, int], tuple[str, dict[str, Any]]]


def _named(name: str, **settings: Any) -> Make:
    return lambda space, budget: (name, {"space": space, **settings})


def _nevergrad(optimizer: str) -> Make:
    return lambda space, budget: (
        "nevergrad",
        {"space": space, "optimizer": optimizer, "budget": budget, "score_members": False},
    )


def _chain(space: WeightSpace, budget: int) -> tuple[str, dict[str, Any]]:
    """Gauss-Newton on the losses, then CMA-ES on the objective, from the best point."""
    size = {100: 2, 300: 8, 600: 32}[budget]
    first: Any = plugins.strategy("gauss_newton")
    second: Any = plugins.strategy("cma")
    refine = second.Settings(space=space, sigma=0.1, score_members=False)
    stages = (
        Stage(Choice("gauss_newton", first.Settings(space=space)), evaluations=20 + 10 * size),
        Stage(Choice("cma", refine)),
    )
    return "stages", {"stages": stages}


STRATEGIES: dict[str, Make] = {
    "random": _named("random"),
    "pycma": _named("cma", score_members=False, start=0.5),
    "Optuna TPE": _named("optuna", sampler="tpe", score_members=False),
    "nevergrad NGOpt": _nevergrad("NGOpt"),
    "nevergrad DE": _nevergrad("DE"),
    "nevergrad PSO": _nevergrad("PSO"),
    "cma": _named("cma"),
    "ga": _named("ga"),
    "gauss_newton": _named("gauss_newton"),
    "gauss_newton then cma": _chain,
    "m2n2": lambda space, budget: ("m2n2", {}),
    "frank_wolfe": lambda space, budget: ("frank_wolfe", {"per_group": True}),
}


NEED_WEIGHTS = ("m2n2",)
"""Strategies whose recipes are not just weights of the members, which is all that the tables know."""


def landscapes(work: Path, seed: int) -> Iterator[tuple[str, WeightSpace, Callable[[], Landscape]]]:
    """Name, search space and maker of each landscape that can be had here."""
    for objective in ("cross_entropy", "accuracy"):
        for grouping, size in (("whole", 2), ("tensor", 8)):
            yield f"digits, {size} {objective}", WeightSpace(), partial(digits, work, seed, grouping, objective)
        for grouping, size in (("whole", 8), ("tensor", 32)):
            if (SHARED / "data/mnist").exists():
                space = WeightSpace("task_arithmetic")
                yield f"images, {size} {objective}", space, partial(images, work, seed, grouping, objective)
    if (SHARED / "data/merge_landscapes").exists():
        yield "tables, 8 accuracy", WeightSpace("task_arithmetic"), partial(table, seed)


def search(make: Make, space: WeightSpace, landscape: Landscape) -> dict[str, Any]:
    """One run: the best value so far with the evaluation that found it, and seconds spent by the strategy alone."""
    budget = BUDGETS[space.size(landscape.problem)]
    name, settings = make(space, budget)
    kind: Any = plugins.strategy(name)
    began = time.perf_counter()
    strategy = kind(kind.Settings(**settings), landscape.problem)
    state, main = strategy.start(), landscape.problem.objectives[0]
    best: list[float] = []
    spent, items = 0.0, landscape.problem.items
    while len(best) < budget:
        state, asked = strategy.ask(state, 1)
        if not asked:
            break
        for candidate in asked:
            evaluating = time.perf_counter()
            told = landscape.evaluate(candidate)
            spent += time.perf_counter() - evaluating
            gain = float("-inf") if told.score is None else main.gain(told.score[main.name])
            if candidate.request.ranges is None:
                best.append(max(gain, best[-1] if best else gain))
            else:  # a part counts by its share
                best += [best[-1]] * round(len(best) + (candidate.request.size or 0) / items - len(best))
            state = strategy.tell(state, told)
    steps = [[at + 1, main.gain(one)] for at, one in enumerate(best[:budget]) if at == 0 or one > best[at - 1]]
    return {"evaluations": budget, "steps": steps, "seconds": round(time.perf_counter() - began - spent, 3)}


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where small models are kept; outside the repository")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--figure", type=Path, default=Path(__file__).with_name("profiles.png"))
    parser.add_argument("--only", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--landscapes", nargs="+", default=[""], help="only those whose names hold one of these words")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for seed in range(options.seeds):
        for place in landscapes(options.work, seed):
            if any(word in place[0] for word in options.landscapes):
                _run(results, options, seed, place)
    print(report(complete(results)))
    figure(complete(results), options.figure)


def _run(results: dict[str, Any], options: Any, seed: int, place: tuple[str, WeightSpace, Any]) -> None:
    landscape: Landscape | None = None
    name, space, make = place
    for strategy in options.only:
        runs = results.setdefault(name, {}).setdefault(strategy, {})
        if str(seed) in runs or (strategy in NEED_WEIGHTS and name.startswith("tables")):
            continue
        landscape = landscape or make()
        runs[str(seed)] = search(STRATEGIES[strategy], space, landscape)
        options.results.write_text(json.dumps(results))
        print(f"{name}, seed {seed}, {strategy}: {runs[str(seed)]['steps'][-1][1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
