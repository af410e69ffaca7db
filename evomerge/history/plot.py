"""Histories as a picture file: value over evaluations, coverage and entropy of the population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evomerge.history.curves import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

COLOURS = ("#1f5fa8", "#d1632a", "#3a8f4d", "#8a4fa3", "#b8902c", "#5b6770", "#c2407f", "#2a9d9d")
INK, FAINT = "#222222", "#9aa0a6"
GRID = 400  # places at which several runs are averaged


def plot_history(path: Path, histories: Mapping[str, Sequence[History]], *, title: str | None = None) -> None:
    """Write the picture; the file's ending says which kind (``.png``, ``.svg``, ``.pdf``).

    ``histories`` are labels and their runs: one run is drawn as it is, with a dot for every evaluation when it stands
    alone; of several (seeds) the mean, with a band of one standard error.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [run for group in histories.values() for run in group]
    if not runs:
        raise ValueError("there is no history to draw")
    diverse = any(run.at.size for run in runs)
    figure = Figure(figsize=(10.5, 4.6) if diverse else (7.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["value", "coverage"], ["value", "entropy"]] if diverse else [["value"]],
                                   width_ratios=[1.7, 1] if diverse else None)  # fmt: skip
    for colour, (label, group) in zip(_cycle(len(histories)), histories.items(), strict=True):
        if len(runs) == 1:
            _dots(panels["value"], group[0])
        _curve(panels["value"], [(_count(run), run.best) for run in group], colour, label)
        for name in ("coverage", "entropy") if diverse else ():
            _curve(panels[name], [(run.at, getattr(run, name)) for run in group if run.at.size], colour, label)
    _dress(panels, runs[0])
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    figure.savefig(path, dpi=160)


def _cycle(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _count(run: History) -> NDArray[np.int64]:
    return np.arange(1, run.best.size + 1)


def _dots(axes: Axes, run: History) -> None:
    """Every evaluation, faintly; as an image in vector files, which would else be huge."""
    axes.plot(_count(run), run.values, ".", ms=3.5, alpha=0.5, color=FAINT, mec="none", rasterized=True,
              label="each candidate")  # fmt: skip


def _curve(axes: Axes, curves: Sequence[tuple[Any, Floats]], colour: str, label: str) -> None:
    """One run as steps, several as mean and standard error up to where the shortest ends."""
    curves = [(at, values) for at, values in curves if values.size]
    if not curves:
        return
    if len(curves) == 1:
        axes.step(*curves[0], where="post", lw=1.7, color=colour, label=label)
        return
    at = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), GRID)
    rows = np.array([values[np.searchsorted(x, at, side="right") - 1] for x, values in curves])
    mean, error = rows.mean(axis=0), rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.18, lw=0)
    axes.plot(at, mean, lw=1.7, color=colour, label=f"{label} (n = {len(rows)})")


def _dress(panels: dict[str, Axes], run: History) -> None:
    """Titles, ticks and a legend; no box."""
    titles = {"value": f"best {run.objective} so far", "coverage": "coverage of the population",
              "entropy": "mean entropy per item (bits)"}  # fmt: skip
    for name, axes in panels.items():
        axes.set_title(titles[name], loc="left", fontsize=10.5, color=INK)
        axes.grid(axis="y", color="#e6e8ea", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=9, colors=INK)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.margins(x=0.01)
        for side in axes.spines.values():
            side.set_visible(False)
        if name != "coverage":
            axes.set_xlabel("evaluations", fontsize=9.5, color=INK)
    if "coverage" in panels:
        panels["coverage"].sharex(panels["entropy"])
        panels["coverage"].tick_params(labelbottom=False)
    panels["value"].legend(
        loc="lower right" if run.direction == "maximize" else "upper right", frameon=False, fontsize=9
    )
