"""The state of the module while Slicer runs: one object that the panel, the effect, scripts and the console share."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.correction.correction import Correction
from SAMFineTunePanel.examples.example_slices import PaintedSlices
from SAMFineTunePanel.jobs.job import Job, JobRunningError
from SAMFineTunePanel.segment_editing.segmentation_undo import SegmentationUndo
from SAMFineTunePanel.worker.hardware_probe import HardwareProbe


class ModuleState(VTKObservationMixin):
    """The job at work, the corrections, and what was found out about the scene.

    Attributes:
        job: the last that was started; None before the first.
        painted: finds labelled slices.
        undo: the states of segmentations before each apply.
        hardware: what the worker can compute on.
        correction: of the panel and of the Segment Editor; there is one at a time.
        scriptedCorrection: of scripts, which wait for it.
        uncertainty: ID of a volume → orientation and the uncertainty of each slice, from the last apply.
    """

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self.job: Job | None = None
        self.painted = PaintedSlices()
        self.undo = SegmentationUndo()
        self.hardware = HardwareProbe()
        self.correction = Correction()
        self.scriptedCorrection = Correction(followsViews=False)
        self.uncertainty: dict[str, tuple[str, list[float]]] = {}
        self._listeners: list[Callable[[Job], None]] = []
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        slicer.app.connect("aboutToQuit()", self.end)

    def start(self, make: Callable[[], Job]) -> Job:
        """Make and start a job.

        Raises:
            JobRunningError: another is at work.
            Exception: what `make` raises.
        """
        if self.job is not None and not self.job.isFinished:
            raise JobRunningError(_("{title} is at work; wait for it or cancel it first.").format(title=self.job.title))
        self.job = make()
        self.job.start()
        for listener in list(self._listeners):
            listener(self.job)
        return self.job

    def addJobListener(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` with each job that starts."""
        self._listeners.append(listener)

    def removeJobListener(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def end(self) -> None:
        """Stop whatever runs: Slicer closes, or the module is unloaded."""
        self.hardware.end()
        self.correction.endForClosing()
        self.scriptedCorrection.endForClosing()
        if self.job is not None and not self.job.isFinished:
            self.job.endForClosing()

    def close(self) -> None:
        """Let go of Slicer: another state takes its place."""
        self.end()
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.end)

    def _onSceneStartClose(self, caller: object, event: object) -> None:
        # First, so that a job that ends now does not take its changes back in a scene that goes away.
        self.undo.forget()
        if self.job is not None and self.job.needsScene:
            self.job.cancel()
            self.job.forgetResult()
        self.painted.forget()
        self.uncertainty.clear()


_state: ModuleState | None = None


def theModuleState() -> ModuleState:
    """The one state, made when it is first asked for."""
    global _state
    if _state is None:
        _state = ModuleState()
    return _state


def closeModuleState() -> None:
    """End what runs; who asks for the state next gets a new one."""
    global _state
    if _state is not None:
        _state.close()
    _state = None
