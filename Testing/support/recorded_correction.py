"""A stand-in for the correction that notes what it is asked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

SHAPE = (6, 14, 16)


class RecordedSession:
    """Stands for what is open."""

    def __init__(self) -> None:
        from SAMFineTunePanel.correction.correction_history import CorrectionHistory
        from SAMFineTunePanel.correction.slice_correction import SliceCorrection

        self.history = CorrectionHistory()
        self.state, self.segment = "closed", None
        self.accepted, self.preview, self.current = set(), {}, SliceCorrection()
        self.isSingleSlice = False

    @property
    def isOpen(self):
        return self.state != "closed"


class Recorded:
    """Stands for the correction; notes what it is asked. A test compares its names with it."""

    def __init__(self) -> None:
        self.asked, self.listeners = [], []
        self.session = RecordedSession()
        self.status = SimpleNamespace(text="", problem="")
        self.refusal, self.editor = "", None

    def addListener(self, listener):
        self.listeners.append(listener)

    def removeListener(self, listener):
        self.listeners.remove(listener)

    def news(self) -> None:
        for listener in self.listeners:
            listener(self, "state")

    def open(self, volume, segmentation, segmentID, model=None) -> None:  # noqa: N803
        from SAMFineTunePanel.segment_editing.corrected_segment import CorrectedSegment

        self._note("open", segmentID, model)
        self.session.segment = CorrectedSegment(volume, segmentation, segmentID)
        self.session.state = "ready"
        self.news()

    def close(self) -> None:
        self.asked.append(("close",))
        self.session.state, self.session.segment = "closed", None
        self.news()

    def addPoint(self, ras, positive):
        self._note("point", tuple(np.round(ras, 3)), positive)

    def addBox(self, first, second):
        self._note("box", tuple(np.round(first, 3)), tuple(np.round(second, 3)))

    def propagate(self, slices):
        self._note("propagate", slices)

    def accept(self, editor=None):
        self._note("accept")
        self.editor = editor

    def undo(self):
        self._note("undo")

    def redo(self):
        self._note("redo")

    def clearPrompts(self):
        self._note("clear")

    def fillBetween(self):
        self._note("between")

    def nextUncertain(self):
        self._note("next")

    def _note(self, *what) -> None:
        if self.refusal:
            raise ValueError(self.refusal)
        self.asked.append(what)


def ids(editor) -> list[str]:
    return list(editor.GetSegmentationNode().GetSegmentation().GetSegmentIDs())
