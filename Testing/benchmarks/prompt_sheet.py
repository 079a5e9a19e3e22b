"""Some slices of each data set with what was pointed at and what came of it, to be looked at.

Each picture is cut out around the structure. White and dotted is the true outline; blue the
jittered box (dashed) and the mask from it; orange the mask after five clicks. Clicks are numbered
in their order, positive ones green, negative ones red.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from SAMFineTuneLib.heads.prompted_segmenter import PromptedSegmenter
from SAMFineTuneLib.prompts.prompt_set import PADDING, POSITIVE
from SAMFineTuneLib.slices.square import SquareFit
from Testing.benchmarks.embedded_volume import EmbeddedVolume, fit_of
from Testing.benchmarks.prompt_scores import dice_of
from Testing.benchmarks.simulated_user import Answer
from Testing.benchmarks.single_slices import Target, TargetVolume

_COLUMNS = 6
_CLICKS = 5
_INCHES = 3.0
_BOX, _CLICKED, _POSITIVE, _NEGATIVE = "#42a5f5", "#ff9800", "#4cff4c", "#ff4c4c"


def draw_prompt_sheet(
    path: Path, segmenter: PromptedSegmenter, volumes: Sequence[TargetVolume], heading: str
) -> None:
    """One row a data set, its targets evenly spaced, into a PNG."""
    names = list(dict.fromkeys(volume.data_set for volume in volumes))
    figure = Figure(
        figsize=(_COLUMNS * _INCHES, len(names) * (_INCHES + 0.4) + 0.8),
        facecolor="black",
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), _COLUMNS, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for row, name in zip(axes, names, strict=True):
        for ax, (volume, target) in zip(row, _some(volumes, name), strict=False):
            _draw(ax, segmenter, volume, target)
    figure.suptitle(heading, color="white")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, framealpha=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, facecolor="black")


def _some(volumes: Sequence[TargetVolume], name: str) -> list[tuple[TargetVolume, Target]]:
    pairs = [
        (volume, target)
        for volume in volumes
        if volume.data_set == name
        for target in volume.targets
    ]
    places = np.linspace(0, len(pairs) - 1, min(_COLUMNS, len(pairs))).round()
    return [pairs[int(place)] for place in places]


def _draw(ax: Axes, segmenter: PromptedSegmenter, volume: TargetVolume, target: Target) -> None:
    fit = fit_of(volume, segmenter.network.input_size)
    user = EmbeddedVolume(segmenter, volume).user([target])
    boxed = next(user.box_and_clicks())
    clicked = list(islice(user.clicks(), _CLICKS))[-1]
    image = volume.images[target.slice]
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, aspect=volume.spacing[0] / volume.spacing[1])
    _outline(ax, boxed.masks[0].numpy(), _BOX, "solid")
    _outline(ax, clicked.masks[0].numpy(), _CLICKED, "solid")
    _outline(ax, target.mask, "white", "dotted")
    _draw_box(ax, user.boxes[0].numpy(), fit)
    _draw_clicks(ax, clicked, fit)
    _cut_out(ax, target.mask)
    dsc = [float(dice_of(answer.masks, user.truth)[0]) for answer in (boxed, clicked)]
    ax.set_title(
        f"{volume.data_set} {volume.name.split('.')[0]}\n{target.structure}, slice {target.slice}\n"
        f"box {dsc[0]:.2f}, {_CLICKS} clicks {dsc[1]:.2f}",
        color="white",
        fontsize=8,
    )


def _outline(ax: Axes, mask: NDArray[np.bool_], colour: str, style: str) -> None:
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.1)


def _on_slice(places: NDArray[np.floating], fit: SquareFit) -> NDArray[np.floating]:
    """Positions (N, 2) on the square to indices of the slice's pixels, whole at their centres."""
    covered = np.array([fit.columns_on_square, fit.rows_on_square])
    found: NDArray[np.floating] = places * [fit.columns, fit.rows] / covered - 0.5
    return found


def _draw_box(ax: Axes, box: NDArray[np.floating], fit: SquareFit) -> None:
    corner, opposite = _on_slice(box.reshape(2, 2), fit)
    width, height = opposite - corner
    ax.add_patch(Rectangle(corner, width, height, fill=False, color=_BOX, linestyle="dashed"))


def _draw_clicks(ax: Axes, answer: Answer, fit: SquareFit) -> None:
    places = _on_slice(answer.prompts.points[0].numpy(), fit)
    for number, (place, label) in enumerate(
        zip(places, answer.prompts.labels[0].tolist(), strict=True), start=1
    ):
        if label == PADDING:
            continue
        colour = _POSITIVE if label == POSITIVE else _NEGATIVE
        ax.plot(*place, "+" if label == POSITIVE else "x", color=colour, markersize=7)
        ax.annotate(
            str(number),
            place,
            xytext=(3, 3),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            clip_on=True,
        )


def _cut_out(ax: Axes, mask: NDArray[np.bool_]) -> None:
    """Shows the structure with half its size around it, at least some pixels."""
    for axis, limit in ((0, ax.set_ylim), (1, ax.set_xlim)):
        shown = np.flatnonzero(mask.any(axis=1 - axis))
        margin = max(8.0, 0.6 * (shown[-1] - shown[0] + 1))
        low = max(-0.5, shown[0] - margin)
        high = min(mask.shape[axis] - 0.5, shown[-1] + margin)
        limit(*((high, low) if axis == 0 else (low, high)))


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color="grey", linestyle="dotted", label="true"),
        Line2D([], [], color=_BOX, label="from the box (dashed)"),
        Line2D([], [], color=_CLICKED, label=f"after {_CLICKS} clicks"),
        Line2D([], [], color=_POSITIVE, marker="+", linestyle="none", label="positive click"),
        Line2D([], [], color=_NEGATIVE, marker="x", linestyle="none", label="negative click"),
    ]
