"""The segment that is corrected, on the slices of its volume: places, masks, and writing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.node_kinds import requireSegmentation, requireVolume
from SAMFineTunePanel.scene.segment_voxels import BINARY_LABELMAP, hasVoxelsOnly, segmentName
from SAMFineTunePanel.scene.voxel_grid import ORIENTATIONS, Box, VoxelGrid, gridOf, worldTransform
from SAMFineTunePanel.segment_editing.edit_planning import plannedEdit
from SAMFineTunePanel.segment_editing.masking_settings import MaskingSettings, maskingSettingsOf
from SAMFineTunePanel.segment_editing.proposed_mask import ProposedMask
from SAMFineTunePanel.segment_editing.segment_edit import SegmentEdit, carryOutAll
from SAMFineTunePanel.segment_editing.segment_editor import SegmentEditor, slicersEditor
from SAMFineTunePanel.segment_editing.segmentation_lattice import LatticeBox, segmentIn

# A point of the world in millimetres: right, anterior, superior.
Ras = Iterable[float]
# Voxel indices (i, j, k), not rounded.
Place = tuple[float, float, float]

# The shortest side of a box, in voxels: a little more than the worker asks for, which would refuse all prompts.
_LEAST_SIDE = 1.001


@dataclass(frozen=True, eq=False)
class CorrectedSegment:
    """A segment, its volume, and the voxel axis along which slices are corrected.

    Masks are bool (rows, columns): the axes of the array (k, j, i) that are left. Places are voxel indices
    (i, j, k), not rounded; RAS is the world's.

    Attributes:
        volume: the image.
        segmentation: holds the segment.
        segmentID: of the segment.
        axis: 0 for i, 1 for j, 2 for k.
    """

    volume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    segmentID: str
    axis: int = 2

    def require(self) -> None:
        """Refuse what cannot be corrected.

        Raises:
            ValueError: in words.
        """
        requireVolume(self.volume)
        requireSegmentation(self.segmentation)
        problem = self.problem()
        if problem:
            raise ValueError(problem)
        segmentation = self.segmentation.GetSegmentation()
        source = segmentation.GetSourceRepresentationName()
        if segmentation.GetNumberOfSegments() and source and source != BINARY_LABELMAP:
            raise ValueError(
                _(
                    "{name} is not made of voxels but of surfaces. Choose another segmentation, or make binary "
                    "labelmaps its source (module Segmentations)."
                ).format(name=self.segmentation.GetName())
            )

    def problem(self) -> str:
        """What was removed from the scene or cannot be followed any more, in words; "" when all is well."""
        for node in (self.volume, self.segmentation):
            if not slicer.mrmlScene.IsNodePresent(node):
                return _("{name} was removed from the scene.").format(name=node.GetName())
        if self.segmentation.GetSegmentation().GetSegment(self.segmentID) is None:
            return _("The segment was removed from {name}.").format(name=self.segmentation.GetName())
        try:
            gridOf(self.volume)
            worldTransform(self.segmentation)
        except ValueError as error:
            return str(error)
        return ""

    @property
    def name(self) -> str:
        """What the user calls the segment."""
        return segmentName(self.segmentation, self.segmentID)

    @property
    def grid(self) -> VoxelGrid:
        """Where the volume's voxels lie at present."""
        return gridOf(self.volume)

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.grid.size[self.axis]

    @property
    def orientation(self) -> str:
        """What the slices are called at present; turning the volume may change it."""
        grid = self.grid
        return next(each for each in ORIENTATIONS if grid.voxelAxis(each) == self.axis)

    def placeOf(self, ras: Ras) -> np.ndarray:
        """The place of a point of the world.

        Raises:
            ValueError: it is no point, or lies outside the volume.
        """
        point = np.asarray(list(ras), dtype=float)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise ValueError(_("A point has three coordinates: right, anterior, superior in millimetres."))
        grid = self.grid
        place = (np.linalg.inv(grid.ijkToRas) @ [*point, 1.0])[:3]
        if (place < -0.5).any() or (place >= np.array(grid.size) - 0.5).any():
            raise ValueError(
                _("The point lies outside of volume {name}. Click inside of it.").format(name=self.volume.GetName())
            )
        return place

    def numberOf(self, place: np.ndarray) -> int:
        """The slice of a place."""
        return int(np.floor(place[self.axis] + 0.5))

    def onSlice(self, place: np.ndarray, number: int) -> Place:
        """The nearest place on a slice."""
        moved = np.array(place, dtype=float)
        moved[self.axis] = number
        i, j, k = moved.tolist()
        return i, j, k

    def rasOf(self, place: Iterable[float]) -> np.ndarray:
        """The point of the world at a place."""
        return (self.grid.ijkToRas @ [*place, 1.0])[:3]

    def requireArea(self, first: Place, second: Place) -> None:
        """Refuse two corners of a box without area.

        Raises:
            ValueError: in words.
        """
        sides = np.delete(np.abs(np.subtract(first, second)), self.axis)
        if sides.min() < _LEAST_SIDE:
            raise ValueError(_("The box has no area: its corners lie in one row or column of voxels. Draw it anew."))

    def mask(self, number: int) -> np.ndarray:
        """What the segment holds on a slice."""
        k, j, i = self._box(number)
        start = (i.start, j.start, k.start)
        shape = (k.stop - k.start, j.stop - j.start, i.stop - i.start)
        matrix = np.linalg.inv(worldTransform(self.segmentation)) @ self.grid.ijkToRas
        held = segmentIn(self.segmentation, self.segmentID, LatticeBox(start, shape, matrix))
        return np.take(held, 0, axis=2 - self.axis)

    def write(self, proposed: Mapping[int, ProposedMask], editor: SegmentEditor | None = None) -> list[SegmentEdit]:
        """Change the segment as these masks of slices do, where an editor allows it.

        All or nothing, and one step of the editor's undo.

        Args:
            proposed: slice → its mask.
            editor: the editor; None for Slicer's module Segment Editor.

        Raises:
            ValueError: as `plannedEdit` and `carryOutAll`.
        """
        editor = slicersEditor(self.segmentation) if editor is None else editor
        masking = maskingSettingsOf(editor.node)
        numbers = sorted(proposed)
        # Surfaces are made anew with each edit, which takes longer than looking at slices that do not change.
        parts = _runs(numbers) if hasVoxelsOnly(self.segmentation) else [numbers]
        edits = [self._planned({number: proposed[number] for number in part}, masking) for part in parts]
        carryOutAll(edits, editor.saveState)
        return edits

    def _planned(self, proposed: Mapping[int, ProposedMask], masking: MaskingSettings) -> SegmentEdit:
        """One edit for slices, those between them included."""
        first, stop = min(proposed), max(proposed) + 1
        changes = {number: each.changed for number, each in proposed.items()}
        # Most of a slice does not change; what nobody looks at takes no time.
        rows = _extent([np.asarray(each.any(axis=1)) for each in changes.values()])
        columns = _extent([np.asarray(each.any(axis=0)) for each in changes.values()])
        shape = (stop - first, rows.stop - rows.start, columns.stop - columns.start)
        mask, where = np.zeros(shape, bool), np.zeros(shape, bool)
        for number, changed in changes.items():
            mask[number - first] = proposed[number].mask[rows, columns]
            where[number - first] = changed[rows, columns]
        box = self._boxOf(slice(first, stop), rows, columns)
        mask, where = (np.moveaxis(each, 0, 2 - self.axis) for each in (mask, where))
        return plannedEdit(self.volume, self.segmentation, self.segmentID, box, mask, where, masking)

    def _box(self, number: int) -> Box:
        """All of a slice: (k, j, i)."""
        rows, columns = (slice(0, size) for axis, size in enumerate(self.grid.shape) if axis != 2 - self.axis)
        return self._boxOf(slice(number, number + 1), rows, columns)

    def _boxOf(self, numbers: slice, rows: slice, columns: slice) -> Box:
        """A box (k, j, i) of some slices, and of a part of each."""
        box = [rows, columns]
        box.insert(2 - self.axis, numbers)
        k, j, i = box
        return k, j, i


def _runs(numbers: list[int]) -> list[list[int]]:
    """Sorted numbers, cut where one is left out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _extent(lines: list[np.ndarray]) -> slice:
    """From the first to the last place that is set in one of these; one place where none is."""
    places = np.flatnonzero(np.logical_or.reduce(lines))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)
