"""What the user has said of a volume's slices, kept in what a model predicts for that volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import slicer

from SAMFineTunePanel.examples.example_slices import ExampleSlices, PaintedSlices, chosenSegmentIDs, usableExamples
from SAMFineTunePanel.scene.segment_voxels import segmentName, segmentVoxels
from SAMFineTunePanel.scene.structure_label import StructureLabel
from SAMFineTunePanel.scene.voxel_grid import gridOf

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example


class KnownSlices:
    """Labelled slices as they were drawn, and empty ones empty.

    Args:
        examples: of the scene; those of other volumes, and those that cannot be used, count for nothing.
        volume: for which something was predicted.
        painted: finds labelled slices.
    """

    def __init__(self, examples: list[Example], volume: slicer.vtkMRMLScalarVolumeNode, painted: PaintedSlices) -> None:
        self._volume = volume
        self._examples = list(usableExamples(examples, volume, painted))

    def keepIn(self, predicted: np.ndarray, labels: list[StructureLabel]) -> Iterator[None]:
        """Change a predicted labelmap where it is known better; yields between pieces.

        Args:
            predicted: (k, j, i) on the volume's grid, changed in place.
            labels: what its numbers are.

        Raises:
            ValueError: as `segmentVoxels`.
        """
        values = {label.name: label.value for label in labels}
        for example, slices in self._examples:
            axis = 2 - gridOf(self._volume).voxelAxis(slices.orientation)
            for segmentID in chosenSegmentIDs(example):
                name = segmentName(example.segmentation, segmentID)
                if name in values:
                    known = _knownNumbers(slices, name)
                    yield from _clear(predicted, values[name], axis, known)
                    yield from self._draw(predicted, values[name], axis, known, example, segmentID)

    def _draw(
        self, predicted: np.ndarray, value: int, axis: int, known: np.ndarray, example: Example, segmentID: str
    ) -> Iterator[None]:
        for box, mask in segmentVoxels(example.segmentation, segmentID, self._volume).slabs():
            shape = [-1 if each == axis else 1 for each in range(3)]
            predicted[box][mask & known[box[axis]].reshape(shape)] = value
            yield


def _knownNumbers(slices: ExampleSlices, name: str) -> np.ndarray:
    """bool for each slice: whether it is known where on it the segment is, or that it is not there."""
    known = np.zeros(slices.count, bool)
    known[[*slices.bySegment[name], *slices.complete, *slices.empty]] = True
    extent = slices.extent
    if extent is not None:
        known[: extent[0]] = True
        known[extent[1] + 1 :] = True
    known[list(slices.unfinished)] = False
    return known


def _clear(predicted: np.ndarray, value: int, axis: int, known: np.ndarray) -> Iterator[None]:
    along = np.moveaxis(predicted, axis, 0)
    for number in np.flatnonzero(known):
        # A view, so that what is cleared is the labelmap.
        plane = along[number]
        plane[plane == value] = 0
        if number % 16 == 0:
            yield
