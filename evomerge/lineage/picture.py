"""A family tree as a picture file: generations downward, pool members at the top, colour for value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.lineage.family import Family
from evomerge.lineage.layout import Drawing, arrange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

MOST = 150
INK, FAINT, WINNER = "#222222", "#9aa0a6", "#d62728"


def draw(family: Family, path: Path, *, most: int = MOST, title: str | None = None) -> None:
    """Write the picture; the file's ending says which kind (``.png``, ``.svg``, ``.pdf``).

    A family of more than ``most`` candidates is drawn with its most influential ones only; dashed lines stand for
    descent past those left out. Rows are generations; those without anyone drawn are skipped.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = arrange(family, most)
    widest = max(len(row) for row in drawing.rows)
    width = min(18.0, max(6.0, 1.5 + 0.62 * widest))
    height = min(12.0, max(4.0, 1.9 + 0.62 * len(drawing.rows)))
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    small = len(family.relatives) - drawing.left_out <= 60
    place = {n: (drawing.x[n], row) for row, numbers in enumerate(drawing.rows) for n in numbers}
    _lines(axes, drawing, place)
    dots = _dots(axes, family, place, small)
    _names(axes, family, place, small)
    _frame(axes, drawing, 0.6 * len(drawing.rows) / (height - 1.9))
    if dots is not None:
        bar = figure.colorbar(dots, ax=axes, shrink=min(1.0, 4.0 / height), aspect=22, pad=0.02)
        bar.set_label(f"{family.objective} (search split)")
        bar.outline.set_visible(False)
    axes.set_title(title or _title(family, drawing), loc="left", fontsize=11, color=INK)
    figure.savefig(path, dpi=160)


def _title(family: Family, drawing: Drawing) -> str:
    title = f"Candidate {family.root} and the {len(family.relatives) - 1:,} candidates it descends from"
    if drawing.left_out:
        title += f"\n({len(family.relatives) - drawing.left_out - 1:,} drawn: those through which most of it came)"
    return title


def _lines(axes: Axes, drawing: Drawing, place: dict[int, tuple[float, int]]) -> None:
    """Smooth curves from child to ancestor; dashed past those left out."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    for child, ancestor, direct in drawing.lines:
        (x0, y0), (x1, y1) = place[ancestor], place[child]
        bend = 0.45 * (y1 - y0)
        curve = Curve([(x0, y0), (x0, y0 + bend), (x1, y1 - bend), (x1, y1)], [Curve.MOVETO, *[Curve.CURVE4] * 3])
        style: dict[str, Any] = {"lw": 0.9, "alpha": 0.75} if direct else {"lw": 0.7, "alpha": 0.5, "ls": (0, (3, 3))}
        axes.add_patch(PathPatch(curve, fc="none", ec=FAINT, zorder=1, **style))


def _dots(axes: Axes, family: Family, place: dict[int, tuple[float, int]], small: bool) -> PathCollection | None:
    """A dot a candidate; hollow without a value, ringed for the root. What the colour bar is of."""
    size = 190 if small else 60
    valued = [n for n in place if family.relatives[n].value is not None]
    hollow = [n for n in place if family.relatives[n].value is None]
    root = place[family.root]
    axes.scatter([root[0]], [root[1]], s=size * 2.6, c="none", edgecolors=WINNER, linewidths=2.2, zorder=4)
    if hollow:
        xs, ys = zip(*(place[n] for n in hollow), strict=True)
        axes.scatter(xs, ys, s=size, c="white", edgecolors=FAINT, linewidths=1.0, zorder=3)
    if not valued:
        return None
    xs, ys = zip(*(place[n] for n in valued), strict=True)
    values = np.array([family.relatives[n].value for n in valued], dtype=float)
    colours = "viridis" if family.direction == "maximize" else "viridis_r"
    return axes.scatter(xs, ys, s=size, c=values, cmap=colours, edgecolors="white", linewidths=0.8, zorder=3)


def _names(axes: Axes, family: Family, place: dict[int, tuple[float, int]], small: bool) -> None:
    """Pool members above those built from them, the root's name and value below, numbers where there is room."""
    names = sum(1 for number in place if not family.relatives[number].candidate.parents)
    for number, (x, y) in place.items():
        relative = family.relatives[number]
        if relative.members and not relative.candidate.parents:
            name = ", ".join(relative.members)
            axes.annotate(
                name, (x, y), (0, 12), textcoords="offset points", ha="center", va="bottom", fontsize=9,
                color=INK, fontweight="bold", rotation=0 if names <= 6 else 35,
            )  # fmt: skip
        if number == family.root:
            value = "no score" if relative.value is None else f"{relative.value:.4g}"
            axes.annotate(
                f"#{number}: {value}", (x, y), (0, -16), textcoords="offset points", ha="center", va="top",
                fontsize=10, color=WINNER, fontweight="bold",
            )  # fmt: skip
        elif small:
            axes.annotate(
                f"{number}", (x, y), (9, 0), textcoords="offset points", ha="left", va="center", fontsize=7, color=INK
            )


def _frame(axes: Axes, drawing: Drawing, margin: float) -> None:
    """Generations down the left side, nothing else; ``margin`` rows above and below for names."""
    rows = len(drawing.rows)
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(rows - 1 + margin, -margin)
    step = max(1, -(-rows // 40))
    axes.set_yticks(range(0, rows, step), [str(generation) for generation in drawing.generations[::step]])
    axes.set_ylabel("generation")
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=8, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
