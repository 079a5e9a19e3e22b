"""From the files of a job to the scene: the segmented frames of a sequence, as a sequence of segmentations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.examples.known_slices import KnownSlices
from SAMFineTunePanel.jobs.result_import import (
    PredictedStructures,
    addUncertaintyVolume,
    createSegmentation,
    uncertaintyImage,
)
from SAMFineTunePanel.scene.frames import VolumeFrame, requirePresent
from SAMFineTunePanel.scene.sequences import NodeSequence
from SAMFineTunePanel.scene.structure_label import StructureLabel
from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo


@dataclass
class SegmentedSequence:
    """Makes a sequence with a segmentation for each frame, at the index values of the frames, in the same browser.

    With uncertainties there is a second sequence of volumes. Nothing is in the scene before all frames are done.

    Attributes:
        frames: of one sequence of volumes.
        files: the labelmap of each frame, …
        doubtFiles: … and its uncertainty; none where none was made.
        name: of the segmentation that shows the frames.
        labels: what the numbers in the labelmaps are.
        known: gives what the user has said of a frame's slices; None where nothing is kept.
        show3D: whether every frame gets surfaces.
    """

    frames: Sequence[VolumeFrame]
    files: Sequence[Path]
    doubtFiles: Sequence[Path]
    name: str
    labels: list[StructureLabel]
    known: Callable[[VolumeFrame], KnownSlices | None]
    show3D: bool = False

    def steps(self, undo: SegmentationUndo) -> Generator[None, None, slicer.vtkMRMLSegmentationNode]:
        """Does the work in small pieces; returns the segmentation that shows the frames.

        Args:
            undo: takes all of it back as one.

        Raises:
            ValueError: what was removed from the scene meanwhile, in words, or as `PredictedStructures`.
            OSError: a file cannot be read.
        """
        made = _sequenceLike(self._source.sequence)
        items = yield from self._segmentations(made)
        doubt = _sequenceLike(self._source.sequence)
        yield from self._uncertainties(doubt)
        states = yield from undo.statesOf(items)
        requirePresent(self.frames[0])
        shown = createSegmentation(self._source.proxy, self.name)
        self._addToBrowser(made, shown)
        undo.noteMade(shown)
        undo.noteBeside(shown, made)
        if self.doubtFiles:
            volume = addUncertaintyVolume(self._source.proxy)
            self._addToBrowser(doubt, volume)
            undo.noteBeside(shown, doubt)
            undo.noteBeside(shown, volume)
        undo.noteItems(shown, states)
        return shown

    @property
    def _source(self) -> NodeSequence:
        return self.frames[0].sequence

    def _segmentations(
        self, made: slicer.vtkMRMLSequenceNode
    ) -> Generator[None, None, list[slicer.vtkMRMLSegmentationNode]]:
        items = []
        for frame, file in zip(self.frames, self.files, strict=True):
            requirePresent(frame)
            items.append(_emptyItem(made, frame))
            yield from PredictedStructures(
                file, frame, items[-1], self.labels, self.known(frame), under=self._source.proxy
            ).steps()
            if self.show3D:
                items[-1].CreateClosedSurfaceRepresentation()
            yield
        return items

    def _uncertainties(self, made: slicer.vtkMRMLSequenceNode) -> Iterator[None]:
        for frame, file in zip(self.frames, self.doubtFiles, strict=bool(self.doubtFiles)):
            requirePresent(frame)
            image = yield from uncertaintyImage(file)
            # A sequence copies what it is given; an item without voxels gets the ones that are there already.
            item = made.SetDataNodeAtValue(slicer.vtkMRMLScalarVolumeNode(), frame.indexValue)
            matrix = vtk.vtkMatrix4x4()
            frame.GetIJKToRASMatrix(matrix)
            item.SetIJKToRASMatrix(matrix)
            item.SetAndObserveImageData(image)
            yield

    def _addToBrowser(self, made: slicer.vtkMRMLSequenceNode, shown: slicer.vtkMRMLNode) -> None:
        """Add a sequence to the scene and to the browser, with the node that is to follow it."""
        made.SetName(slicer.mrmlScene.GenerateUniqueName(_("{name} sequence").format(name=shown.GetName())))
        slicer.mrmlScene.AddNode(made)
        browser = self._source.browser
        # Else the browser, as soon as it knows the sequence, makes a node of its own for it.
        wasModified = browser.StartModify()
        try:
            slicer.modules.sequences.logic().AddSynchronizedNode(made, shown, browser)
            # What the user edits on a frame stays with that frame, …
            browser.SetSaveChanges(made, True)
            # … and where no frame was segmented there is nothing, and not a copy of the one before.
            browser.SetMissingItemMode(made, browser.MissingItemSetToDefault)
        finally:
            browser.EndModify(wasModified)


def _sequenceLike(sequence: slicer.vtkMRMLSequenceNode) -> slicer.vtkMRMLSequenceNode:
    """An empty sequence, not in the scene, with the same kind of index: a browser refuses another one."""
    made = slicer.vtkMRMLSequenceNode()
    made.SetIndexName(sequence.GetIndexName())
    made.SetIndexUnit(sequence.GetIndexUnit())
    made.SetIndexType(sequence.GetIndexType())
    made.SetNumericIndexValueTolerance(sequence.GetNumericIndexValueTolerance())
    return made


def _emptyItem(made: slicer.vtkMRMLSequenceNode, frame: VolumeFrame) -> slicer.vtkMRMLSegmentationNode:
    """An empty segmentation at a frame's index value, with the geometry of the frame."""
    item = made.SetDataNodeAtValue(slicer.vtkMRMLSegmentationNode(), frame.indexValue)
    item.SetReferenceImageGeometryParameterFromVolumeNode(frame.node)
    # That volume is in another sequence's scene.
    item.SetNodeReferenceID(item.GetReferenceImageGeometryReferenceRole(), None)
    return item
