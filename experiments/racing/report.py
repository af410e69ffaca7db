"""The table and the figure of results.json.

Usage: python experiments/racing/report.py
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
POLICIES = ("whole", "race 95 %", "race 80 %", "race 95 %, irt", "halving")
ITEMS = 1000


def main() -> None:
    results: list[dict[str, Any]] = json.loads((HERE / "results.json").read_text())
    results.sort(key=lambda one: (one["strategy"], one["objective"], POLICIES.index(one["policy"])))
    for (strategy, objective), ones in groupby(results, key=lambda one: (one["strategy"], one["objective"])):
        print(f"\n{strategy}, {objective}\n\n{table(list(ones), strategy)}")
    figure(results)


def table(results: list[dict[str, Any]], strategy: str) -> str:
    """Markdown, a row per policy."""
    whole = {one["seed"]: one for one in results if one["policy"] == "whole"}
    first = "items per candidate" if strategy == "random" else "candidates"
    rows = [f"| policy | {first} | good ones dropped | error of estimates | winner, search | winner, report accuracy |"]
    rows.append("|---|---|---|---|---|---|")
    for policy, group in groupby(results, key=lambda one: str(one["policy"])):
        ones = list(group)
        good, lost = (sum(one[key] for one in ones) for key in ("good", "good_dropped"))
        share = sum(one["items"] for one in ones) / sum(one["candidates"] for one in ones)
        seen = (
            f"{share:.0f} ({100 * share / ITEMS:.0f} %)" if strategy == "random" else mean(ones, "candidates", "{:.0f}")
        )
        kept = sum(one["winner"] >= whole[one["seed"]]["winner"] - 1e-12 for one in ones)
        search = f"{mean(ones, 'winner')}; at least the whole one's in {kept} of {len(ones)}"
        error = "-" if policy == "whole" else mean(ones, "estimate_error", "{:.3f}")
        dropped = "-" if policy in ("whole", "halving") else f"{lost} of {good} ({100 * lost / good:.1f} %)"
        rows.append(f"| {policy} | {seen} | {dropped} | {error} | {search} | {mean(ones, 'report_accuracy')} |")
    return "\n".join(rows)


def mean(results: list[dict[str, Any]], key: str, form: str = "{:.4f}") -> str:
    values = np.array([one[key] for one in results])
    return f"{form.format(values.mean())} ± {form.format(values.std(ddof=1) / np.sqrt(len(values)))}"


def figure(results: list[dict[str, Any]]) -> None:
    """Left: what each policy costs a candidate; right: the winners of equal budgets, a dot per repetition."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for at, policy in enumerate(POLICIES):
        for shift, objective, colour in ((-0.2, "accuracy", "C0"), (0.2, "cross_entropy", "C1")):
            ones = [one for one in results if one["policy"] == policy and one["objective"] == objective]
            cost = [one["items"] / one["candidates"] for one in ones if one["strategy"] == "random"]
            report = [100 * one["report_accuracy"] for one in ones if one["strategy"] == "cma"]
            label = f"objective {objective.replace('_', '-')}" if at == 0 else None
            if cost:
                left.bar(at + shift, np.mean(cost), 0.36, color=colour, label=label)
                right.scatter(at + shift + np.linspace(-0.1, 0.1, len(report)), report, 8, color=colour, alpha=0.5)
                right.hlines(np.mean(report), at + shift - 0.15, at + shift + 0.15, color=colour)
    for axes, title in (
        (left, "items per candidate, random search"),
        (right, "report accuracy in %, CMA-ES, equal items"),
    ):
        axes.set_xticks(range(len(POLICIES)), POLICIES, rotation=15)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9)
    drawn.savefig(HERE / "racing.png", dpi=110)


if __name__ == "__main__":
    main()
