"""What happens in the scene to the nodes of a correction, and which slices its views show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

# One edit makes a node report several changes; they are handled together, this long after the last.
_REST_MS = 50


class CorrectionWatch(VTKObservationMixin):
    """Observes the images of a case, a segmentation and the slice views.

    Args:
        onNodesChanged: called some time after a node was edited, moved or removed, or a segment was.
        onViewMoved: called when a slice view has moved.
        onSceneClose: called when the scene is about to be emptied.
    """

    def __init__(
        self, onNodesChanged: Callable[[], None], onViewMoved: Callable[[], None], onSceneClose: Callable[[], None]
    ) -> None:
        VTKObservationMixin.__init__(self)
        self._sceneClose = onSceneClose
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)
        self._timer.connect("timeout()", onNodesChanged)
        self._viewTimer = qt.QTimer()
        self._viewTimer.setSingleShot(True)
        self._viewTimer.setInterval(0)
        self._viewTimer.connect("timeout()", onViewMoved)

    def follow(
        self,
        volumeNodes: Sequence[slicer.vtkMRMLScalarVolumeNode],
        segmentationNode: slicer.vtkMRMLSegmentationNode,
    ) -> None:
        """Observe these from now on."""
        self.leave()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeChanged)
        self.addObserver(scene, scene.NodeAddedEvent, self._observeViews)
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for node in volumeNodes:
            self.addObserver(node, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self._onNodeChanged)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onNodeChanged)
        for node in (*volumeNodes, segmentationNode):
            self.addObserver(node, moved, self._onNodeChanged)
        for event in (slicer.vtkSegmentation.SegmentRemoved, slicer.vtkSegmentation.SegmentModified):
            self.addObserver(segmentationNode, event, self._onNodeChanged)
        self._observeViews()

    def leave(self) -> None:
        """Observe nothing any more."""
        self._timer.stop()
        self._viewTimer.stop()
        self.removeObservers()

    def _observeViews(self, caller: object = None, event: object = None) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if not self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewModified):
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewModified)

    def _onViewModified(self, caller: object = None, event: object = None) -> None:
        if not self._viewTimer.active:
            self._viewTimer.start()

    def _onNodeChanged(self, caller: object = None, event: object = None) -> None:
        self._timer.start()

    def _onSceneStartClose(self, caller: object = None, event: object = None) -> None:
        self._sceneClose()
