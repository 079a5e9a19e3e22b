"""A picture of several slices side by side, with the outlines of labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from SAMFineTuneLib.files import written_whole

_PREDICTED: Literal["solid"] = "solid"
_TRUE: Literal["dotted"] = "dotted"
_COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45")
_INCHES = 2.4


@dataclass(frozen=True, eq=False)
class SlicePanel:
    """One picture of a sheet.

    Attributes:
        title: text above the picture.
        image: (rows, columns) from 0 (black) to 1 (white), or (rows, columns, channels): colours,
            or several images, of which the first is shown.
        truth: true labels, drawn as dotted outlines; None if they are not known.
        predicted: predicted labels, drawn as solid outlines; None if nothing was predicted.
        labelled: whether the model was trained on the slice, which then gets a white frame.
        aspect: height of a pixel divided by its width.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    predicted: np.ndarray | None
    labelled: bool = False
    aspect: float = 1.0


def write_contact_sheet(path: Path, panels: list[SlicePanel], heading: str = "") -> None:
    """Draws the panels in rows into a PNG; it appears whole or not at all."""
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(columns * _INCHES, rows * (_INCHES + 0.3) + 0.8),
        facecolor="black",
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, ax in enumerate(axes.flat):
        ax.axis("off")
        if place < len(panels):
            _draw(ax, panels[place])
    figure.suptitle(heading, color="white", fontsize=10)
    figure.legend(handles=_legend(), loc="lower center", ncols=3, fontsize=8, framealpha=0.9)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=110, facecolor="black")


def _draw(ax: Axes, panel: SlicePanel) -> None:
    rows, columns = panel.image.shape[:2]
    image = panel.image[..., 0] if panel.image.shape[2:] == (2,) else panel.image
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, aspect=panel.aspect)
    ax.set_title(
        panel.title + (" (labelled)" if panel.labelled else ""),
        color="white",
        fontsize=8,
        fontweight="bold" if panel.labelled else "normal",
    )
    for labels, style in ((panel.truth, _TRUE), (panel.predicted, _PREDICTED)):
        if labels is not None:
            _outline(ax, labels, style)
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    if panel.labelled:
        ax.axis("on")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_color("white")


def _outline(ax: Axes, labels: np.ndarray, style: str) -> None:
    if min(labels.shape) < 2:
        return  # Matplotlib cannot draw contours of a single row or column of pixels.
    for label in np.unique(labels[labels > 0]):
        colour = _COLOURS[int(label) % len(_COLOURS)] if style == _PREDICTED else "white"
        ax.contour(
            labels == label, levels=[0.5], colors=[colour], linestyles=[style], linewidths=0.9
        )


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=_COLOURS[1], linestyle=_PREDICTED, label="predicted"),
        Line2D([], [], color="grey", linestyle=_TRUE, label="true"),
    ]
