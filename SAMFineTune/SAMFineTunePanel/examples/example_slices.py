"""Which slices of an example are labelled, and what else the user has said of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.example_frames import atItsFrame
from SAMFineTunePanel.scene.frames import SegmentationFrame
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP, SegmentVoxels, segmentName, segmentVoxels
from SAMFineTunePanel.scene.voxel_grid import ORIENTATIONS, VoxelGrid, gridOf

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example


@dataclass(frozen=True)
class ExampleSlices:
    """The slices of one example; numbers count from 0 along the volume's own voxel axis.

    Attributes:
        orientation: "axial", "coronal" or "sagittal"; where the user left it open, the one in
            which the labels were drawn, by the library's rule.
        count: slices of the volume in this orientation.
        bySegment: name of each chosen segment → slices on which it is painted.
        complete, unfinished, empty: as the user marked them.
        first, last: where the user says that the structure begins and ends; -1 for not said.
        problem: why the example cannot be used, in words; "" when it can.
        warning: what the user should know all the same.
    """

    orientation: str = "axial"
    count: int = 0
    bySegment: dict[str, list[int]] = field(default_factory=dict)
    complete: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    first: int = -1
    last: int = -1
    problem: str = ""
    warning: str = ""

    @property
    def found(self) -> list[int]:
        """Slices on which any chosen segment is painted."""
        return sorted({number for numbers in self.bySegment.values() for number in numbers})

    @property
    def labelled(self) -> list[int]:
        """Slices to learn the structures from."""
        return sorted(({*self.found} - {*self.unfinished}) | {*self.complete})

    @property
    def absenceIsSaid(self) -> bool:
        """Whether there are slices on which a segment that is not painted is known to be absent."""
        return bool(self.complete or self.empty or self.extent is not None)

    @property
    def extent(self) -> tuple[int, int] | None:
        """First and last slice that hold anything, when the user has said at least one of them."""
        if self.first < 0 and self.last < 0:
            return None
        return max(self.first, 0), self.last if self.last >= 0 else self.count - 1


def chosenSegmentIDs(example: Example) -> list[str]:
    """The segments of an example: those chosen, or all of its segmentation."""
    chosen = list(example.segmentIDs)
    return chosen or list(example.segmentation.GetSegmentation().GetSegmentIDs())


class PaintedSlices:
    """Finds on which slices segments are painted; remembers until a segment or a geometry changes."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[tuple, list[np.ndarray]]] = {}

    def forget(self) -> None:
        """Drop what is remembered, for another scene."""
        self._known.clear()

    def along(self, example: Example, segmentID: str) -> list[np.ndarray]:
        """For the voxel axes i, j, k: the slices that hold the segment.

        Raises:
            ValueError: as `segmentVoxels`.
        """
        key = (example.volume.GetID(), example.segmentation.GetID(), segmentID)
        state = _state(example, segmentID)
        known = self._known.get(key)
        if known is None or known[0] != state:
            known = (state, _occupied(segmentVoxels(example.segmentation, segmentID, example.volume)))
            self._known[key] = known
        return known[1]


def _state(example: Example, segmentID: str) -> tuple:
    """Changes whenever the answer might."""
    segment = example.segmentation.GetSegmentation().GetSegment(segmentID)
    if segment is None:
        return ()
    image = segment.GetRepresentation(BINARY_LABELMAP)
    times = [image.GetMTime() if image is not None else segment.GetMTime(), segment.GetLabelValue()]
    for node in (example.volume, example.segmentation):
        transform = node.GetParentTransformNode()
        times += [node.GetID(), transform.GetTransformToWorldMTime() if transform is not None else 0]
    return (*times, gridOf(example.volume).ijkToRas.tobytes(), example.volume.GetImageData().GetDimensions())


def _occupied(voxels: SegmentVoxels) -> list[np.ndarray]:
    """For the voxel axes i, j, k: the slices that hold the segment."""
    depth, rows, columns = voxels.labels.shape
    inPlane, shadow = np.zeros(depth, bool), np.zeros((rows, columns), bool)
    # Plane by plane: a few times faster than reducing the whole mask along its slow axes.
    for number, labels in enumerate(voxels.labels):
        mask = labels == voxels.value
        if mask.any():
            inPlane[number] = True
            shadow |= mask
    along = (shadow.any(axis=0), shadow.any(axis=1), inPlane)
    return [np.flatnonzero(each) + first for each, first in zip(along, voxels.start, strict=True)]


def slicesOf(example: Example, painted: PaintedSlices) -> ExampleSlices:
    """Everything that is known of an example's slices; never raises for what a user can bring about."""
    try:
        example = atItsFrame(example)
        problem = _missing(example)
        if problem:
            return ExampleSlices(problem=problem)
        grid = gridOf(example.volume)
        bySegment = {segmentID: painted.along(example, segmentID) for segmentID in chosenSegmentIDs(example)}
    except ValueError as error:
        return ExampleSlices(problem=str(error))
    axes = {each: grid.voxelAxis(each) for each in ORIENTATIONS}
    orientation = example.orientation
    if orientation not in ORIENTATIONS or _isPicture(grid):
        orientation = _orientationDrawn(grid, axes, list(bySegment.values()))
    axis = axes[orientation]
    slices = ExampleSlices(
        orientation=orientation,
        count=grid.size[axis],
        bySegment={
            segmentName(example.segmentation, segmentID): along[axis].tolist() for segmentID, along in bySegment.items()
        },
        complete=tuple(example.complete),
        unfinished=tuple(example.unfinished),
        empty=tuple(example.empty),
        first=example.first,
        last=example.last,
    )
    return _withLostEdits(_judged(slices), example)


def _withLostEdits(slices: ExampleSlices, example: Example) -> ExampleSlices:
    """With a remark where what is drawn on frames is not kept, by a choice of Slicer's module Sequences."""
    segmentation = example.segmentation
    if not isinstance(segmentation, SegmentationFrame) or segmentation.sequence.keepsEdits:
        return slices
    remark = _(
        "What is drawn in {name} is lost when another frame is shown: turn on Save changes for it in the module "
        "Sequences."
    ).format(name=segmentation.sequence.proxy.GetName())
    if slices.problem:
        return replace(slices, problem=f"{slices.problem} {remark}")
    return replace(slices, warning=f"{slices.warning} {remark}".strip())


def usableExamples(
    examples: list[Example], volume: slicer.vtkMRMLScalarVolumeNode, painted: PaintedSlices
) -> Iterator[tuple[Example, ExampleSlices]]:
    """The examples of a volume that can be used, with what is known of their slices."""
    for each in examples:
        try:
            example = atItsFrame(each)
        except ValueError:
            # Its frame is gone, and with it what was said of it.
            continue
        if example.volume is not None and example.volume.GetID() == volume.GetID():
            slices = slicesOf(example, painted)
            if not slices.problem:
                yield example, slices


def _missing(example: Example) -> str:
    if example.volume is None:
        return _("The volume has been removed from the scene.")
    if example.segmentation is None:
        return _("The segmentation has been removed from the scene.")
    segmentation = example.segmentation.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0:
        return _("Segmentation {name} has no segments yet.").format(name=example.segmentation.GetName())
    if any(segmentation.GetSegment(segmentID) is None for segmentID in example.segmentIDs):
        return _("A segment that was chosen has been removed from {name}.").format(name=example.segmentation.GetName())
    names = [segmentName(example.segmentation, segmentID) for segmentID in chosenSegmentIDs(example)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        return _("Two segments of {name} are called {segment}. Rename one.").format(
            name=example.segmentation.GetName(), segment=", ".join(sorted(twice))
        )
    return ""


def _isPicture(grid: VoxelGrid) -> bool:
    """Whether there is a single slice; across any other axis it would fall into lines."""
    from SAMFineTuneLib.geometry.drawn_axis import only_slice_axis

    return only_slice_axis(grid.size) is not None


def _orientationDrawn(grid: VoxelGrid, axes: dict[str, int], painted: list[list[np.ndarray]]) -> str:
    """The orientation in which the labelled slices were drawn, by the library's rule."""
    from SAMFineTuneLib.geometry.drawn_axis import drawn_axis

    occupied = [np.unique(np.concatenate([along[axis] for along in painted])) for axis in range(3)]
    drawn = drawn_axis(occupied, grid.size, grid.spacing.tolist(), axes["axial"])
    return next(name for name, axis in axes.items() if axis == drawn)


def _judged(slices: ExampleSlices) -> ExampleSlices:
    return replace(slices, problem=_contradiction(slices), warning=_doubt(slices))


def _contradiction(slices: ExampleSlices) -> str:
    painted = set(slices.found) - set(slices.unfinished)
    empty = sorted(painted & set(slices.empty))
    if empty:
        return _("Slice {number} is marked as empty but something is painted on it.").format(number=empty[0])
    extent = slices.extent
    if extent is not None:
        if extent[0] > extent[1]:
            return _("The structure is said to begin behind its end (slices {first} and {last}).").format(
                first=extent[0], last=extent[1]
            )
        beyond = [number for number in slices.labelled if not extent[0] <= number <= extent[1]]
        if beyond:
            return _("Slice {number} is labelled, but lies beyond where the structure is said to begin or end.").format(
                number=beyond[0]
            )
    marked = [*slices.complete, *slices.unfinished, *slices.empty, slices.first, slices.last]
    if any(number >= slices.count for number in marked):
        return _("Slices were marked that this orientation does not have. Clear the marks.")
    if not slices.found and not (slices.complete or slices.empty):
        return _("Nothing is painted yet. Label a few {orientation} slices in the Segment Editor.").format(
            orientation=slices.orientation
        )
    if slices.found and not painted:
        return _("All labelled slices are marked as not done.")
    return ""


def _doubt(slices: ExampleSlices) -> str:
    bare = [name for name, numbers in slices.bySegment.items() if not numbers]
    if not slices.found:
        return _("Nothing is painted: the slices marked as done or empty are learnt as empty.")
    if bare and slices.absenceIsSaid:
        return _("{names}: nothing is painted; known to be absent where slices are done or empty.").format(
            names=", ".join(bare)
        )
    if bare:
        return _("{names}: nothing is painted; it will not be learnt from here.").format(names=", ".join(bare))
    return ""
