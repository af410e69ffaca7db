"""Tables and the figure of the comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RIVALS = ("pycma", "Optuna TPE", "nevergrad NGOpt")
TOLERANCE = 0.02
"""A run has solved a landscape when this share of the way from the first value to the best of all is left."""


Results = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Landscape, strategy, seed: number of evaluations, and steps [evaluation, best value from there on]."""


def complete(results: dict[str, Any]) -> Results:
    """Only the seeds of each landscape that every strategy has done."""
    found: Results = {}
    for name, runs in results.items():
        begun = {strategy: one for strategy, one in runs.items() if one}
        seeds = set.intersection(*(set(one) for one in begun.values())) if begun else set()
        if seeds:
            found[name] = {strategy: {seed: one[seed] for seed in seeds} for strategy, one in begun.items()}
    return found


def curves(runs: dict[str, Any], name: str) -> NDArray[np.float64]:
    """Best values so far, (seeds, evaluations), turned so that smaller is better."""
    values = np.array([_curve(runs[seed]) for seed in sorted(runs, key=int)])
    return -values if name.endswith("accuracy") else values


def _curve(run: dict[str, Any]) -> NDArray[np.float64]:
    """The best value after every evaluation."""
    starts = [int(at) - 1 for at, _ in run["steps"]]
    lengths = np.diff([*starts, run["evaluations"]])
    return np.repeat([value for _, value in run["steps"]], lengths)


def first(curve: NDArray[np.float64], target: float) -> float:
    """After how many evaluations the target is reached; infinite if never."""
    hits = np.flatnonzero(curve <= target)
    return float(hits[0] + 1) if hits.size else float("inf")


def solved_after(results: Results, name: str) -> dict[str, list[float]]:
    """For each strategy the evaluations that each seed's landscape took to be solved."""
    all_curves = {strategy: curves(runs, name) for strategy, runs in results[name].items()}
    found: dict[str, list[float]] = {strategy: [] for strategy in all_curves}
    for seed in range(len(next(iter(all_curves.values())))):
        best = min(one[seed].min() for one in all_curves.values())
        start = max(one[seed, 0] for one in all_curves.values())
        for strategy, one in all_curves.items():
            found[strategy].append(first(one[seed], best + TOLERANCE * (start - best)))
    return found


def report(results: Results) -> str:
    """Two tables in Markdown: final values, and evaluations needed in comparison with the rivals."""
    names = list(results)
    strategies = list(dict.fromkeys(one for name in names for one in results[name]))
    lines = ["| strategy | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for strategy in strategies:
        cells = []
        for name in names:
            if strategy not in results[name]:
                cells.append("")
                continue
            finals = np.abs(curves(results[name][strategy], name)[:, -1])
            error = finals.std(ddof=1) / np.sqrt(finals.size) if finals.size > 1 else 0.0
            cells.append(f"{finals.mean():.4f} ± {error:.4f}")
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    lines += ["", "Best mean, and who is not worse by more than two standard errors of paired differences:", ""]
    lines += ["| landscape | best | tied |", "|---|---|---|"]
    lines += [f"| {name} | {' | '.join(leaders(results[name], name))} |" for name in names]
    lines += ["", "Evaluations until a rival's final value is reached, as a share of what the rival took (median):", ""]
    lines += ["| landscape | strategy | " + " | ".join(RIVALS) + " |", "|---" * (len(RIVALS) + 2) + "|"]
    for name in names:
        for strategy in ("gauss_newton", "gauss_newton then cma"):
            if strategy in results[name]:
                cells = [f"{share(results[name], name, strategy, rival):.2f}" for rival in RIVALS]
                lines.append(f"| {name} | {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def leaders(runs: dict[str, Any], name: str) -> tuple[str, str]:
    """The strategy with the best mean final value, and those that differ from it by noise only."""
    finals = {strategy: curves(one, name)[:, -1] for strategy, one in runs.items()}
    best = min(finals, key=lambda strategy: float(finals[strategy].mean()))
    tied = []
    for strategy, one in finals.items():
        worse = one - finals[best]
        if strategy != best and worse.mean() <= 2 * worse.std(ddof=1) / np.sqrt(worse.size):
            tied.append(strategy)
    return best, ", ".join(tied)


def share(runs: dict[str, Any], name: str, strategy: str, rival: str) -> float:
    """Median over seeds of evaluations to the rival's final value, over those the rival itself took."""
    if rival not in runs:
        return float("nan")
    mine, theirs = curves(runs[strategy], name), curves(runs[rival], name)
    ratios = []
    for one, other in zip(mine, theirs, strict=False):
        ratios.append(first(one, other[-1]) / first(other, other[-1]))
    return float(np.median(ratios))


def figure(results: Results, path: Path) -> None:
    """Performance profiles: the share of runs solved after so many evaluations, in times the quickest strategy's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    solved = {name: solved_after(results, name) for name in results}
    strategies = list(dict.fromkeys(one for name in solved for one in solved[name]))
    ratios: dict[str, list[float]] = {strategy: [] for strategy in strategies}
    for found in solved.values():
        for seed in range(len(next(iter(found.values())))):
            quickest = min(one[seed] for one in found.values())
            for strategy in strategies:
                taken = found.get(strategy, [float("inf")] * (seed + 1))[seed]
                ratios[strategy].append(taken / quickest)
    at = np.geomspace(1, 64, 200)
    drawing, axes = pyplot.subplots(figsize=(9, 5), constrained_layout=True)
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors[::2] + pyplot.get_cmap("tab20").colors[1::2])
    for strategy in sorted(strategies, key=lambda one: -float(np.mean(np.array(ratios[one]) <= 4))):
        shares = [(np.array(ratios[strategy]) <= one).mean() for one in at]
        style = "--" if strategy in RIVALS else "-"
        axes.plot(at, shares, style, label=strategy, linewidth=2)
    axes.set(
        xscale="log", xlabel="evaluations, in times those of the quickest", ylabel="share of runs solved", ylim=(0, 1)
    )
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    drawing.savefig(path, dpi=130)
    pyplot.close(drawing)
