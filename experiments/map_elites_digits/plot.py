"""The figure of the README, from the results.

python experiments/map_elites_digits/plot.py experiments/map_elites_digits/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

PUBLISHED = 62.3


def main() -> None:
    path = Path(sys.argv[1])
    rows = json.loads(path.read_text())
    kinds = [("labels", 10_000), ("labels", 3000), ("places", 3000)]
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for at, (grid, children) in enumerate(kinds):
        mine = [row for row in rows if (row["grid"], row["children"]) == (grid, children)]
        for offset, key, colour in ((-0.1, "train", "tab:gray"), (0.1, "test", "tab:blue")):
            values = [100 * row[key] for row in mine]
            axes.plot([at + offset] * len(values), values, "o", color=colour, label=key if at == 0 else None, alpha=0.7)
    axes.axhline(PUBLISHED, color="tab:blue", linestyle="--", linewidth=1, label="published, test, 10,000 children")
    axes.set_xticks(range(len(kinds)), [f"{grid}\n{children:,} children" for grid, children in kinds])
    axes.set_ylabel("accuracy of the best, %")
    axes.set_ylim(35, 85)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path.with_name("accuracy.png"), dpi=150)


if __name__ == "__main__":
    main()
