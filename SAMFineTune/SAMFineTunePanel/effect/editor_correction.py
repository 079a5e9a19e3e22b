"""Keeps the correction on what is selected in a Segment Editor, while the effect is active there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.correction_display.mask_preview import MaskPreview
from SAMFineTunePanel.correction_display.prompt_markups import PromptMarkups
from SAMFineTunePanel.segment_editing.segment_editor import SegmentEditor
from SAMFineTunePanel.texts.error_text import textOf
from SAMFineTunePanel.worker.python_packages import missingPackages

if TYPE_CHECKING:
    from SAMFineTunePanel.correction.correction import Correction

# Volume, segmentation and ID of the segment that are selected in the editor.
Selected = tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode, str]

# How near a click must come to a control point to take hold of it, in pixels.
_REACH = 8.0


class EditorCorrection(VTKObservationMixin):
    """The one correction of the module, driven from a Segment Editor; knows no widgets.

    A correction of the same segment that is open already, from the panel, is joined and not closed.

    Args:
        correction: SAMFineTunePanel.correction.correction.Correction.
        changed: called whenever there is something else to show.
        saveState: has the editor keep the segmentation as it is now, for its undo.

    Attributes:
        correction: as given.
        isActive: whether the effect is.
        lacksPackages: whether Python packages have to be installed first.
        model: name of a tuned model; "" for the backbone as it is.
    """

    def __init__(self, correction: Correction, changed: Callable[[], None], saveState: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.correction = correction
        self.isActive = False
        self.lacksPackages = False
        self.model = ""
        self._changed = changed
        self._saveState = saveState
        self._editorNode: slicer.vtkMRMLSegmentEditorNode | None = None
        self._opened: Selected | None = None
        self._isOwn = False
        self._problem = ""
        self._shown: tuple[MaskPreview | PromptMarkups, ...] = ()
        correction.addListener(self._onCorrection)

    @property
    def text(self) -> str:
        """What happened last, for the user."""
        return self.correction.status.text

    @property
    def problem(self) -> str:
        """What went wrong last, or is missing; "" when all is well."""
        if self.lacksPackages:
            return _(
                "Python packages are missing. Install them in the module SAM FineTune, then choose this effect again."
            )
        return self._problem or self.correction.status.problem

    def lookAtPackages(self) -> bool:
        """Look at what is installed; whether everything is there, so that it can begin."""
        self.lacksPackages = bool(missingPackages())
        return not self.lacksPackages

    def begin(self, editorNode: slicer.vtkMRMLSegmentEditorNode) -> None:
        """The effect becomes active in an editor: correct what is selected there, now and later."""
        self.end()
        self.isActive = True
        self._editorNode = editorNode
        # The panel shows them only while it is in view.
        self._shown = (
            MaskPreview(self.correction),
            PromptMarkups(self.correction, self._showProblem, self._changed),
        )
        self.addObserver(editorNode, vtk.vtkCommand.ModifiedEvent, self._onEditorModified)
        self._openSelected()

    def end(self) -> None:
        """The effect is active no more; what was accepted stays."""
        self.isActive = False
        self.removeObservers()
        self._editorNode = None
        self._close()
        for shown in self._shown:
            shown.remove()
        self._shown = ()
        self._opened, self._problem = None, ""

    def cleanup(self) -> None:
        """Let go of the correction."""
        self.end()
        self.correction.removeListener(self._onCorrection)

    def chooseModel(self, name: str) -> None:
        """Work with another model from now on; "" for the backbone as it is."""
        if name != self.model:
            self.model = name
            self.startAgain()

    def startAgain(self) -> None:
        """Open the correction anew, after it was closed by what happened in the scene or to its worker."""
        if self.isActive:
            self._openSelected()

    def accept(self) -> None:
        """Accept as this editor's masking allows, for its undo too.

        Raises:
            ValueError: as `Correction.accept`.
        """
        self.correction.accept(self._editor())

    def attempt(self, act: Callable[[], Any]) -> None:
        """Do something with the correction; what hinders it is shown."""
        from SAMFineTuneLib.errors import InputError

        self._problem = ""
        try:
            act()
        except (ValueError, RuntimeError, InputError) as error:
            self._problem = textOf(error)
        self._changed()

    def isOnPrompt(self, xy: tuple[int, int], sliceNode: slicer.vtkMRMLSliceNode) -> bool:
        """Whether a pixel of a slice view is on a prompt, which can be dragged there."""
        if not self.correction.session.isOpen:
            return False
        toXy = np.linalg.inv(slicer.util.arrayFromVTKMatrix(sliceNode.GetXYToRAS()))
        for prompt in self.correction.session.current.prompts:
            for place in prompt.corners if prompt.kind == "box" else (prompt.at,):
                shown = toXy @ [*self.correction.session.segment.rasOf(place), 1.0]
                if np.hypot(*(shown[:2] - xy)) <= _REACH:
                    return True
        return False

    def _openSelected(self) -> None:
        """Open the correction of what is selected; close it where nothing is."""
        selected = self._selected()
        if selected is None:
            self._close()
            self._opened, self._problem = None, _("Choose a source volume, a segmentation and a segment above.")
            self._changed()
        elif not self._isOwn and self._isOpenOn(*selected):
            self._opened, self._problem = selected, ""
            self._changed()
        else:
            self._open(selected)

    def _open(self, selected: Selected) -> None:
        before, wasOwn = self._opened, self._isOwn
        self._opened, self._isOwn = selected, True
        # What was open is not closed first: its worker has read the volume, and serves its other segments too.
        self.attempt(lambda: self.correction.open(*selected, model=self.model))
        if self._problem and wasOwn and before is not None and self._isOpenOn(*before):
            self.correction.close()

    def _selected(self) -> Selected | None:
        node = self._editorNode
        if node is None:
            return None
        volume, segmentation, segmentID = (
            node.GetSourceVolumeNode(),
            node.GetSegmentationNode(),
            node.GetSelectedSegmentID() or "",
        )
        if volume is None or segmentation is None or segmentation.GetSegmentation().GetSegment(segmentID) is None:
            return None
        return volume, segmentation, segmentID

    def _editor(self) -> SegmentEditor | None:
        """The editor, where what is corrected is what it edits."""
        node, session = self._editorNode, self.correction.session
        if node is None or not session.isOpen or node.GetSegmentationNode() is not session.segment.segmentation:
            return None
        return SegmentEditor(node, self._saveState)

    def _isOpenOn(
        self, volume: slicer.vtkMRMLScalarVolumeNode, segmentation: slicer.vtkMRMLSegmentationNode, segmentID: str
    ) -> bool:
        if not self.correction.session.isOpen:
            return False
        segment = self.correction.session.segment
        return (segment.volume, segment.segmentation, segment.segmentID) == (volume, segmentation, segmentID)

    def _close(self) -> None:
        # Where it was opened elsewhere, or something else was opened since, it is not ours to close.
        if self._isOwn and self._opened is not None and self._isOpenOn(*self._opened):
            self.correction.close()
        self._isOwn = False

    def _showProblem(self, problem: str) -> None:
        self._problem = problem
        self._changed()

    def _onEditorModified(self, caller: object, event: object) -> None:
        # The node reports everything that is chosen in the editor; a correction is not opened anew for that.
        if self._selected() != self._opened:
            self._openSelected()

    def _onCorrection(self, correction: Correction, event: str) -> None:
        if self.isActive:
            self._changed()
