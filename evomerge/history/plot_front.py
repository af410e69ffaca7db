"""A front as a picture file: the main objective against each of the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evomerge.history.front import ParetoFront
from evomerge.history.plot import COLOURS, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def plot_front(path: Path, found: ParetoFront, *, title: str | None = None) -> None:
    """Write the picture; the file's ending says which kind (``.png``, ``.svg``, ``.pdf``)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    others = len(found.objectives) - 1
    figure = Figure(figsize=(1.0 + 4.6 * others, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, at in zip(figure.subplots(1, others, squeeze=False)[0], range(1, others + 1), strict=True):
        _panel(axes, found, at)
    figure.axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    figure.savefig(path, dpi=160)


def _panel(axes: Axes, found: ParetoFront, at: int) -> None:
    """One objective over the main one; with two objectives the front is a staircase."""
    pair = [0, at]
    axes.plot(*found.others[:, pair].T, ".", ms=4, alpha=0.6, color=FAINT, mec="none", rasterized=True,
              label="other candidates")  # fmt: skip
    if len(found.objectives) == 2:
        # the best on the first objective stands first, so each step leads away from it at the next one's height
        axes.step(*found.values[:, pair].T, where="post", lw=1.2, color=COLOURS[0])
    axes.plot(*found.values[:, pair].T, "o", ms=4.5, color=COLOURS[0], mec="white", mew=0.5, label="front")
    axes.plot(*found.reference[pair], "x", ms=7, mew=1.6, color=COLOURS[1], label="reference")
    for label, objective in ((axes.set_xlabel, found.objectives[0]), (axes.set_ylabel, found.objectives[at])):
        better = "higher" if objective.direction == "maximize" else "lower"
        label(f"{objective.name} ({better} is better)", fontsize=9.5, color=INK)
    axes.grid(color="#e6e8ea", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
