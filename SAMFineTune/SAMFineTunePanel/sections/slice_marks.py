"""What the user says of the slice in view: done, empty, where the structure begins and ends; what to label next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAMFineTunePanel.examples.example_slices import ExampleSlices
from SAMFineTunePanel.examples.slice_state import SliceState, stateOf
from SAMFineTunePanel.sections.panel_section import allow, showText

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTunePanel.parameter_node import Example

# A slice view tells of each step of the wheel.
_VIEW_RESTS_MS = 60

NO_MARKS: dict[str, object] = {"complete": [], "unfinished": [], "empty": [], "first": -1, "last": -1}


class SliceMarks(VTKObservationMixin):
    """The part of the panel that follows the slice in view.

    Args:
        ui: the parts of the examples section.
        logic: the module's.
        changed: called after the user marked a slice.
    """

    def __init__(self, ui: Any, logic: SAMFineTuneLogic, changed: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self._logic = logic
        self._changed = changed
        self._example: Example | None = None
        self._index = -1
        self._slices = ExampleSlices()
        self._number: int | None = None
        # The slice that was in view, or about to be, when the text on it was shown.
        self._sliceOfText: int | None = None
        self._following = False
        self._viewTimer = qt.QTimer()
        self._viewTimer.setSingleShot(True)
        self._viewTimer.setInterval(_VIEW_RESTS_MS)
        self._viewTimer.connect("timeout()", self.update)
        ui.doneCheckBox.connect("clicked(bool)", self.onDone)
        ui.emptyCheckBox.connect("clicked(bool)", self.onEmpty)
        ui.beginsButton.connect("clicked(bool)", self.onBegins)
        ui.endsButton.connect("clicked(bool)", self.onEnds)
        ui.suggestButton.connect("clicked(bool)", self.onSuggest)
        ui.clearMarksButton.connect("clicked(bool)", self.onClearMarks)

    def setExample(self, example: Example | None, index: int, slices: ExampleSlices | None) -> None:
        """Show the slices of this example from now on; None for no example."""
        self._example, self._index = example, index
        self._slices = slices if slices is not None else ExampleSlices()
        self.update()

    def follow(self, following: bool) -> None:
        """Whether to follow the slice views as they move."""
        self._following = following
        if not following:
            self._viewTimer.stop()
            self.removeObservers()

    def show(self, number: int) -> None:
        """Move the slice view to a slice of the example."""
        if self._example is None:
            return
        try:
            self._logic.showSlice(self._example, number)
        except ValueError as error:
            self._showForSlice(self._number, f"⚠ {error}")
        self.update()

    def update(self) -> None:
        """Show what is known of the slice in view."""
        if self._example is None:
            return
        if self._following:
            self._observeSliceViews()
        view = self._logic.sliceInView(self._example) if self._slices.count else None
        self._number = view.number if view is not None else None
        if view is not None and view.number is not None:
            state, problem = stateOf(self._slices, view.number), ""
            showText(
                self.ui.sliceLabel,
                _("{view} view: {orientation} slice {number} of 0 to {last}").format(
                    view=view.viewName,
                    orientation=self._slices.orientation,
                    number=view.number,
                    last=self._slices.count - 1,
                ),
            )
        else:
            state, problem = None, view.problem if view is not None else self._slices.problem
            turn = _("A click on a number above shows that slice.") if self._slices.labelled else ""
            showText(self.ui.sliceLabel, f"{problem} {turn}".strip())
        if self._number != self._sliceOfText:
            self._showForSlice(self._number, "")
        self._showToggles(state, problem)
        self._showExtent(state, problem)
        allow(
            self.ui.suggestButton,
            "" if self._slices.count else self._slices.problem,
            _(
                "Shows the slice that is farthest from the labelled ones and, once a model was applied to this volume, "
                "where that model is least certain"
            ),
        )
        allow(
            self.ui.clearMarksButton,
            "" if _hasMarks(self._slices) else _("No slice is marked"),
            _("Forget all marks: done, empty, begins and ends; what is painted stays"),
        )

    def onDone(self, checked: bool = False) -> None:
        """The slice in view is labelled completely, or as far as it is painted, or not yet."""
        if self._number is None:
            return
        wanted = self.ui.doneCheckBox.checkState()
        if wanted == qt.Qt.PartiallyChecked:
            self._forgetMark(self._number)
        else:
            self._logic.markComplete(self._index, self._number, wanted == qt.Qt.Checked)
        self._changed()

    def onEmpty(self, checked: bool = False) -> None:
        """The slice in view shows nothing of the structure."""
        if self._number is not None:
            self._logic.markEmpty(self._index, self._number, checked)
            self._changed()

    def onBegins(self, checked: bool = False) -> None:
        """The structure's first slice is in view."""
        if self._number is not None:
            self._logic.setFirst(self._index, self._number if checked else -1)
            self._changed()

    def onEnds(self, checked: bool = False) -> None:
        """The structure's last slice is in view."""
        if self._number is not None:
            self._logic.setLast(self._index, self._number if checked else -1)
            self._changed()

    def onSuggest(self, checked: bool = False) -> None:
        """Show the slice that is best labelled next."""
        try:
            number = self._logic.suggestSlice(self._index)
        except ValueError as error:
            # The marks contradict each other, or were made for another orientation.
            self._showForSlice(self._number, f"⚠ {error}")
            return
        if number is None:
            self._showForSlice(self._number, _("Every slice is labelled or known to be empty."))
            return
        self._showForSlice(number, _("Label slice {number} next, or mark it as empty.").format(number=number))
        self.show(number)

    def onClearMarks(self, checked: bool = False) -> None:
        """Forget what was said of slices."""
        if self._example is not None:
            example = self._logic.getParameterNode().examples[self._index]
            for name, value in NO_MARKS.items():
                setattr(example, name, value)
            self._changed()

    def _showForSlice(self, number: int | None, text: str) -> None:
        """Show a text as long as this slice stays in view."""
        self._sliceOfText = number
        showText(self.ui.suggestionLabel, text)

    def _forgetMark(self, number: int) -> None:
        example = self._logic.getParameterNode().examples[self._index]
        example.complete = [each for each in example.complete if each != number]
        example.unfinished = [each for each in example.unfinished if each != number]

    def _showToggles(self, state: SliceState | None, problem: str) -> None:
        done, empty = self.ui.doneCheckBox, self.ui.emptyCheckBox
        done.tristate = state is not None and state.isPaintedInPart
        done.setCheckState(state.done if state is not None else qt.Qt.Unchecked)
        empty.checked = state is not None and state.isEmpty
        allow(
            done,
            state.problemWithDone if state is not None else problem,
            _(
                "Tick it when every segment is drawn completely here, those not to be seen left out. "
                "Slices without the tick are not learnt from."
            ),
        )
        allow(
            empty,
            state.problemWithEmpty if state is not None else problem,
            _("Tick it when none of the segments is on this slice"),
        )
        showText(self.ui.stateLabel, state.text if state is not None else "")

    def _showExtent(self, state: SliceState | None, problem: str) -> None:
        first, last = self._slices.first, self._slices.last
        self.ui.beginsButton.checked = state is not None and first == self._number
        self.ui.endsButton.checked = state is not None and last == self._number
        allow(
            self.ui.beginsButton,
            "" if state is not None else problem,
            _(
                "This is the first slice with anything of the structure: those before it are known to be empty. "
                "Press again to take it back."
            ),
        )
        allow(
            self.ui.endsButton,
            "" if state is not None else problem,
            _(
                "This is the last slice with anything of the structure: those behind it are known to be empty. "
                "Press again to take it back."
            ),
        )
        self.ui.extentLabel.text = _extentText(first, last)

    def _observeSliceViews(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if not self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewMoved):
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onViewMoved)

    def _onViewMoved(self, caller: object = None, event: object = None) -> None:
        # A timer that runs is left to run: the panel follows during a long move as well.
        if not self._viewTimer.active:
            self._viewTimer.start()


def _hasMarks(slices: ExampleSlices) -> bool:
    return bool(slices.complete or slices.unfinished or slices.empty) or slices.first >= 0 or slices.last >= 0


def _extentText(first: int, last: int) -> str:
    if first < 0 and last < 0:
        return _("of the structure")
    if last < 0:
        return _("from slice {first}").format(first=first)
    if first < 0:
        return _("to slice {last}").format(last=last)
    return _("slices {first} to {last}").format(first=first, last=last)
