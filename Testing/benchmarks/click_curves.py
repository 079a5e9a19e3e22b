"""DSC of single slices against the number of clicks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from SAMFineTuneLib.interactive.networks import load_networks
from SAMFineTuneLib.interactive.protocol import SessionSettings, Start
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import labelmap_onto, read_labelmap, read_volume
from Testing.benchmarks.correcting_user import Clicking, correct_slice
from Testing.benchmarks.single_slices import Source, cut_along, read_targets, sources
from Testing.benchmarks.tuned_images import TunedImages, tuned_images
from Testing.benchmarks.tuned_models import TunedModels

CLICKS = 10
GOOD = 0.9
# A target on fewer pixels says more of its outline than of the network.
_LEAST_PIXELS = 30
# Of the figure's grid.
_COLUMNS = 3


@dataclass(frozen=True, eq=False)
class ClickCurves:
    """Many slices under one way of working.

    Attributes:
        images: which.
        way: "untuned", "tuned" or "corrected".
        dsc: (slices, CLICKS + 1), before the first click and after each one.
    """

    images: str
    way: str
    dsc: NDArray[np.float64]

    HEADINGS: ClassVar[list[str]] = [
        *("images", "network", "slices", "0 clicks", "1", "2", "3", "5", "10"),
        *(f"clicks to {GOOD:.2f}, median", "mean", "never"),
    ]

    def clicks_to_good(self) -> NDArray[np.int64]:
        """Of each slice; one more than were made where they did not suffice."""
        good = self.dsc >= GOOD
        return np.where(good.any(1), good.argmax(1), CLICKS + 1)

    def row(self) -> list[Any]:
        """Under `HEADINGS`."""
        means = self.dsc.mean(0)
        needed = self.clicks_to_good()
        return [
            *(self.images, self.way, len(self.dsc)),
            *(float(means[clicks]) for clicks in (0, 1, 2, 3, 5, 10)),
            *(float(np.median(needed)), float(needed.mean()), float((needed > CLICKS).mean())),
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {"images": self.images, "way": self.way, "dsc": self.dsc.round(4).tolist()}


def untuned_curves(data: Path, every: int, clicking: Clicking = "largest") -> ClickCurves:
    """The starter network as it comes, on all shared images."""
    curves = []
    for source in sources(data):
        targets = read_targets(source).targets[::every]
        session = open_session(source, None)
        curves += [
            correct_slice(session, target.slice, target.mask, CLICKS, clicking=clicking)
            for target in targets
        ]
    return ClickCurves("all shared images", "untuned", np.array(curves))


def tuned_curves(
    models: TunedModels, every: int, clicking: Clicking = "largest"
) -> Iterator[ClickCurves]:
    """Untuned, tuned and corrected, on the slices that tuned models have not seen."""
    for images in tuned_images(models):
        for way, model, start in _ways(images.model):
            curves = []
            for source in images.sources:
                session = open_session(source, model)
                for label, number, mask in [*_whole_structures(source, session, images)][::every]:
                    user = correct_slice(session, number, mask, CLICKS, start, label, clicking)
                    curves.append(user)
            yield ClickCurves(images.title, way, np.array(curves))


def _ways(model: Path) -> Sequence[tuple[str, Path | None, Start]]:
    """Name, model and beginning of each way of working."""
    return (
        ("untuned", None, "nothing"),
        ("tuned", model, "nothing"),
        ("corrected", model, "model"),
    )


def _whole_structures(
    source: Source, session: SliceCorrector, images: TunedImages
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Label, slice number and mask of every structure on every slice that shows enough of it."""
    geometry = session.stack.geometry
    labels = SliceStack(
        labelmap_onto(read_labelmap(source.labels), geometry).array, geometry, session.stack.axis
    )
    for label in images.structures.values():
        for number in range(len(labels)):
            mask = labels[number] == label
            if mask.sum() >= _LEAST_PIXELS and number not in images.shown.get(label, ()):
                yield label, number, mask


def open_session(source: Source, model: Path | None) -> SliceCorrector:
    """A session on a volume, its embeddings in memory alone."""
    volume = read_volume(source.image)
    settings = SessionSettings(volume=source.image, model=model)
    networks = load_networks(settings, max(volume.geometry.shape))
    axis = networks.card.axis if networks.card else cut_along(volume.geometry)
    return SliceCorrector(volume, axis, networks)


def draw_curves(path: Path, curves: Sequence[ClickCurves]) -> None:
    """Mean DSC against clicks, one line a way, one plot for each set of images."""
    names = list(dict.fromkeys(each.images for each in curves))
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, start=1):
        ax = figure.add_subplot(rows, _COLUMNS, place)
        for each in curves:
            if each.images == name:
                ax.plot(range(CLICKS + 1), each.dsc.mean(0), marker="o", ms=3, label=each.way)
        ax.axhline(GOOD, color="grey", lw=0.8, ls=":")
        ax.set(title=name, xlabel="clicks", ylabel="mean DSC of a slice", ylim=(0, 1))
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)
