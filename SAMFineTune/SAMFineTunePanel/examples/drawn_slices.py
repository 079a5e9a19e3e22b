"""What the user has drawn in volumes that are to be segmented, as the worker of an apply reads it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from SAMFineTunePanel.examples.example_export import LabelmapLayer, jobExample
from SAMFineTunePanel.examples.example_slices import (
    ExampleSlices,
    PaintedSlices,
    chosenSegmentIDs,
    slicesOf,
    usableExamples,
)
from SAMFineTunePanel.scene.segment_voxels import segmentName, segmentVoxels
from SAMFineTunePanel.scene.structure_label import StructureLabel
from SAMFineTunePanel.scene.volume_writing import isOn
from SAMFineTunePanel.scene.voxel_grid import VoxelGrid

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example


@dataclass
class DrawnSlices:
    """Writes what is drawn in volumes into a folder, in the numbers of a model.

    What cannot be written is left out: the worker does without, and `KnownSlices` keeps what there is
    when the result comes in.

    Attributes:
        examples: as in the parameter node.
        folder: of the files.
        painted: finds the labelled slices.
        labels: the structures that the model finds; segments of other names are left out.
        written: what was drawn as job.json has it, filled in by `steps`.
    """

    examples: list[Example]
    folder: Path
    painted: PaintedSlices
    labels: list[StructureLabel]
    written: list[dict[str, Any]] = field(default_factory=list)

    def steps(self, volume: slicer.vtkMRMLScalarVolumeNode, file: Path, grid: VoxelGrid) -> Iterator[None]:
        """Writes what is drawn in one volume, in small pieces.

        Args:
            volume: the image.
            file: to which it was written, …
            grid: … and on which grid.

        Raises:
            OSError: the folder cannot be written.
        """
        for example, slices in usableExamples(self.examples, volume, self.painted):
            try:
                layers = yield from self._layers(example, grid)
                moved = not isOn(volume, grid)
            except ValueError:
                # Events go on meanwhile: a segment was removed, or a transform changed.
                continue
            if moved or slicesOf(example, self.painted) != slices:
                continue
            for layer in layers:
                segmentation = self.folder / f"drawn{len(self.written)}.seg.nrrd"
                yield from layer.write(segmentation)
                numbers = [label.value for label in layer.present]
                self.written.append(jobExample([file], segmentation, numbers, _consistent(slices)) | {"empty": "none"})

    def _layers(self, example: Example, grid: VoxelGrid) -> Generator[None, None, list[LabelmapLayer]]:
        """The known segments in as few labelmaps as hold them without an overlap."""
        values = {label.name: label for label in self.labels}
        volume, segmentation = example.volume, example.segmentation
        names = {segmentID: segmentName(segmentation, segmentID) for segmentID in chosenSegmentIDs(example)}
        layers: list[LabelmapLayer] = []
        for segmentID, name in names.items():
            if name not in values:
                continue
            if not isOn(volume, grid):
                return []
            voxels = segmentVoxels(segmentation, segmentID, volume)
            for layer in layers:
                if not (yield from layer.overlaps(voxels)):
                    break
            else:
                layer = LabelmapLayer(grid, self.labels)
                layers.append(layer)
            yield from layer.add(voxels, values[name])
        return [layer for layer in layers if layer.present]


def _consistent(slices: ExampleSlices) -> ExampleSlices:
    """Without marks that job.json does not take beside others, of which `KnownSlices` lets the others count."""
    complete = {*slices.complete} - {*slices.unfinished}
    empty = {*slices.empty} - {*slices.unfinished} - complete
    return replace(
        slices,
        complete=tuple(sorted(complete)),
        unfinished=tuple(sorted({*slices.unfinished})),
        empty=tuple(sorted(empty)),
    )
