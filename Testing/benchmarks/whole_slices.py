"""A volume of which a few slices are labelled, each with every structure on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from SAMFineTuneLib.evaluation import dice
from SAMFineTuneLib.geometry.cut_axis import cut_axis
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, read_labelmap, write_labelmap
from SAMFineTuneLib.worker.json_text import write_json
from Testing.benchmarks import abdomen
from Testing.benchmarks.few_slices import keep_slices, labelled_range

_FETAL_STACKS = 4


@dataclass(frozen=True)
class WholeSlices:
    """A volume, what is true of it, and between which slices its structures lie.

    Attributes:
        image: the file of the volume.
        truth: on the volume's grid, the structures that count and no others.
        axis: along which it is labelled.
        first: number of the first slice that shows a structure.
        last: number of the last one.
    """

    image: Path
    truth: Labelmap
    axis: str
    first: int
    last: int

    @classmethod
    def read(
        cls, image: Path, labels: Path, axis: str | None = None, wanted: Collection[int] = ()
    ) -> WholeSlices:
        """Reads a volume's labels.

        Args:
            image: the volume.
            labels: its labels, on the same grid.
            axis: along which it is labelled; None for the one with the widest spacing.
            wanted: the labels that count; none for all.
        """
        truth = read_labelmap(labels)
        if wanted:
            chosen = np.isin(truth.array, list(wanted))
            truth = replace(truth, array=np.where(chosen, truth.array, 0))
        axis = axis or cut_axis(truth.geometry, None)
        return cls(image, truth, axis, *labelled_range(truth, axis, truth.labels))

    @property
    def extent(self) -> range:
        """The slices from the first to the last one that shows a structure."""
        return range(self.first, self.last + 1)

    @property
    def slices(self) -> int:
        """How many slices the volume has along the axis."""
        return len(SliceStack.of(self.truth, self.axis))

    def evenly_spaced(self, count: int) -> list[int]:
        """Numbers of slices in the middle of so many equal parts of the extent."""
        length = len(self.extent)
        return [self.first + int((part + 0.5) * length / count) for part in range(count)]

    def few(self, shown: Sequence[int]) -> Labelmap:
        """The labels on some slices only."""
        return keep_slices(self.truth, self.axis, dict.fromkeys(self.truth.labels, shown))

    def write_example(self, folder: Path, shown: Sequence[int]) -> tuple[str | Path, ...]:
        """Writes what a user labelled, and where the structures end; the options for `finetune`.

        The labels are also in `few.nii.gz` of the folder, for `apply --drawn`.
        """
        few = folder / "few.nii.gz"
        write_labelmap(few, self.few(shown))
        example: dict[str, Any] = {
            "volume": str(self.image),
            "segmentation": str(few),
            "axis": self.axis,
            "labelled": list(shown),
            "extent": [self.first, self.last],
        }
        write_json(folder / "examples.json", [example])
        return ("--examples", folder / "examples.json")

    def mean_dsc(self, prediction: Labelmap, numbers: Sequence[int]) -> float | None:
        """DSC on some slices, the mean over the structures that are there or found there."""
        found, true = (SliceStack.of(each, self.axis) for each in (prediction, self.truth))
        pair = [np.stack([each[number] for number in numbers]) for each in (found, true)]
        scores = [
            score
            for label in self.truth.labels
            if (score := dice(pair[0] == label, pair[1] == label)) is not None
        ]
        return float(np.mean(scores)) if scores else None


def _abdomen(data: Path, seed: int) -> WholeSlices:
    folder = data / "ct_abdomen_3mm"
    files = folder / "ct.nii.gz", folder / "organs.nii.gz"
    return WholeSlices.read(*files, abdomen.AXIS, abdomen.STRUCTURES)


def _hippocampus(data: Path, seed: int) -> WholeSlices:
    folder = data / "hippocampus_mr"
    names = sorted(path.name for path in (folder / "images").iterdir())
    name = names[seed % len(names)]
    return WholeSlices.read(folder / "images" / name, folder / "labels" / name, "axial")


def _brain(data: Path, seed: int) -> WholeSlices:
    folder = data / "brain_tumour_mr"
    return WholeSlices.read(folder / "image.nrrd", folder / "tumour.nrrd")


def _fetal(data: Path, seed: int) -> WholeSlices:
    stem = data / "fetal_brain_mr_oblique" / f"run{1 + seed % _FETAL_STACKS}"
    return WholeSlices.read(Path(f"{stem}.nii.gz"), Path(f"{stem}_brain.nii.gz"))


# By the seed another volume is taken where there are several.
VOLUMES: dict[str, Callable[[Path, int], WholeSlices]] = {
    "abdomen": _abdomen,
    "hippocampus": _hippocampus,
    "brain": _brain,
    "fetal": _fetal,
}
