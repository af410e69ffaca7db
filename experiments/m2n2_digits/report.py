"""Table and figure of `parity.py`'s results, beside the published figures.

python experiments/m2n2_digits/report.py results.json --figure parity.png
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

PUBLISHED = {
    "m2n2": (68.4, 68.3, 0.7),
    "no_attraction": (66.3, 66.4, 1.3),
    "no_split_point": (57.8, 57.78, 0.0),
    "ga": (52.0, 52.0, 2.0),
    "per_segment": (None, 69.7, 0.3),
    "scratch_m2n2": (87.1, 87.0, 0.8),
    "scratch_no_crossover": (77.2, 78.0, 0.6),
}
"""Test accuracy in %: read off the paper's figure (+-0.3), and a re-run of the reference (mean, s.e.)."""

LABELS = {
    "m2n2": "M2N2",
    "no_attraction": "no attraction",
    "no_split_point": "no split point",
    "ga": "GA",
    "per_segment": "M2N2, angle per segment",
    "scratch_m2n2": "M2N2",
    "scratch_no_crossover": "no crossover",
}


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error (n - 1)."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.mean(values), spread


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown, one row a variant."""
    rows = [
        "| start | variant | seeds | test % | train % | coverage % | published | reference re-run | within 3 s.e. |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for variant, (figure, again, again_error) in PUBLISHED.items():
        if variant not in runs:
            continue
        last = [one["curve"][-1] for one in runs[variant]]
        cells = []
        for what in ("test", "train", "coverage"):
            mean, error = mean_and_error([100 * row[what] for row in last])
            cells.append(f"{mean:.1f} ± {error:.1f}")
        mean, error = mean_and_error([100 * row["test"] for row in last])
        near = abs(mean - again) <= 3 * math.hypot(error, again_error) + 0.005
        start = "scratch, 50,000" if variant.startswith("scratch") else "seeds, 10,000"
        shown = "-" if figure is None else f"{figure}"
        rows.append(
            f"| {start} | {LABELS[variant]} | {len(last)} | **{cells[0]}** | {cells[1]} | {cells[2]} | {shown} "
            f"| {again} ± {again_error} | {'yes' if near else 'NO'} |"
        )
    return "\n".join(rows)


def figure(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Test accuracy and coverage over children, mean and standard error."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    starts = {"from two pre-trained seeds": False, "from scratch": True}
    plot, axes = plt.subplots(2, 2, figsize=(11, 7), sharex="col", constrained_layout=True)
    for column, (title, scratch) in enumerate(starts.items()):
        variants = [v for v in PUBLISHED if v in runs and v.startswith("scratch") == scratch and v != "per_segment"]
        if not variants:
            continue
        for colour, variant in enumerate(variants):
            by_step: dict[int, list[dict[str, float]]] = defaultdict(list)
            for one in runs[variant]:
                for row in one["curve"]:
                    by_step[row["children"]].append(row)
            steps = sorted(by_step)
            for line, what in enumerate(("test", "coverage")):
                points = [mean_and_error([100 * row[what] for row in by_step[step]]) for step in steps]
                means = [mean for mean, _ in points]
                ax = axes[line, column]
                ax.plot(steps, means, marker="o", markersize=3, color=f"C{colour}", label=LABELS[variant])
                low = [m - e for m, e in points]
                ax.fill_between(steps, low, [m + e for m, e in points], color=f"C{colour}", alpha=0.2)
            goal = PUBLISHED[variant][0]
            if goal is not None:
                axes[0, column].axhline(goal, color=f"C{colour}", linestyle=":", linewidth=1)
        axes[0, column].set_title(title)
        axes[1, column].legend(loc="center right", frameon=False)
        axes[1, column].set_xlabel("evaluated children")
        axes[1, column].set_xscale("log")
    axes[0, 0].set_ylabel("test accuracy, %  (dotted: published)")
    axes[1, 0].set_ylabel("archive coverage of training items, %")
    plot.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in json.loads(given.results.read_text()):
        runs[one["variant"]].append(one)
    print(table(runs))
    if given.figure:
        figure(runs, given.figure)


if __name__ == "__main__":
    main()
