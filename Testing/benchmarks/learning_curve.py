"""Figures of a network against how many images it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_learning_curve(
    path: Path, means: Mapping[int, Mapping[str, float]], names: Sequence[str]
) -> None:
    """One line a name.

    Args:
        path: of the PNG.
        means: number of training images -> name -> DSC.
        names: which of them to draw.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for name in names:
        ax.plot([*means], [each[name] for each in means.values()], marker="o", label=name)
    ax.set_xscale("log")
    ax.set_xlabel("training images (synthetic)")
    ax.set_ylabel("DSC, mean over data sets of real images")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)
