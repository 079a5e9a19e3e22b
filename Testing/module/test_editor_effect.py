"""The Segment Editor's effect: clicks, its options, the correction that follows the editor.

The effect's class itself is held by Slicer's C++ effects; here a strict stand-in holds it.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from Testing.support.scene_builders import add_segmentation, add_volume, box, placement
from Testing.support.scripted_effect import View, effect_base, make_effect

pytestmark = pytest.mark.usefixtures("module", "scene")

SHAPE = (6, 14, 16)


class RecordedSession:
    """Stands for what is open."""

    def __init__(self) -> None:
        from SAMFineTunePanel.correction.correction_history import CorrectionHistory
        from SAMFineTunePanel.correction.slice_correction import SliceCorrection

        self.history = CorrectionHistory()
        self.state, self.segment = "closed", None
        self.accepted, self.preview, self.current = set(), {}, SliceCorrection()

    @property
    def isOpen(self):
        return self.state != "closed"


class Recorded:
    """Stands for the correction; notes what it is asked. A test compares its names with it."""

    def __init__(self) -> None:
        self.asked, self.listeners = [], []
        self.session = RecordedSession()
        self.status = types.SimpleNamespace(text="", problem="")
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


def test_the_stand_in_has_only_names_of_the_correction():
    from SAMFineTunePanel.correction.correction import Correction

    own = {*vars(Recorded), *vars(Recorded())}
    known = {*dir(Correction), *vars(Correction())}
    extra = {name for name in own if not name.startswith("_")} - known
    assert extra == {"asked", "listeners", "refusal", "editor", "news"}
    own = {*vars(RecordedSession), *vars(RecordedSession())}
    known = {*dir(Correction().session), *vars(Correction().session)}
    assert {name for name in own if not name.startswith("_")} <= known


@pytest.fixture
def editor():
    """The editor's node, with a volume and two segments."""
    import slicer

    volume = add_volume(np.zeros(SHAPE, np.int16), placement())
    segmentation = add_segmentation(
        volume, {"liver": box(SHAPE, (1, 5), (2, 8), (3, 9)), "spleen": np.zeros(SHAPE, bool)}
    )
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))
    return node


# Clicks


@pytest.fixture
def mouse():
    """Presses, moves and releases in a slice view of 200 x 100 pixels of half a millimetre."""
    import slicer
    import vtk

    class Mouse:
        def __init__(self) -> None:
            self.interactor = vtk.vtkRenderWindowInteractor()
            self.slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
            self.slice_node.SetLayoutName("Red")
            self.slice_node.SetOrientation("Axial")
            self.slice_node.SetDimensions(200, 100, 1)
            self.slice_node.SetFieldOfView(100, 50, 1)
            self.slice_node.SetSliceOffset(7.0)
            self.slice_node.UpdateMatrices()

        def act(self, reader, event: str, x: int, y: int, ctrl=0, shift=0, alt=0) -> bool:
            self.interactor.SetEventInformation(x, y, ctrl, shift)
            self.interactor.SetAltKey(alt)
            number = getattr(vtk.vtkCommand, f"{event}Event")
            return reader.handle(number, self.interactor, self.slice_node)

    return Mouse()


@pytest.fixture
def clicks():
    from SAMFineTunePanel.effect.clicks import EffectClicks

    correction = Recorded()
    reader = EffectClicks(correction.addPoint, correction.addBox, lambda xy, node: False)
    return reader, correction.asked


def test_a_click_is_a_point_in_the_world(clicks, mouse):
    reader, asked = clicks
    assert mouse.act(reader, "LeftButtonPress", 100, 50)
    # Axial views show the patient's left on the right.
    assert mouse.act(reader, "LeftButtonPress", 120, 40, ctrl=1)
    reader.isPositive = False
    assert mouse.act(reader, "LeftButtonPress", 100, 50)
    assert mouse.act(reader, "LeftButtonPress", 100, 50, ctrl=1)
    assert asked == [
        ("point", (0.0, 0.0, 7.0), True),
        ("point", (-10.0, -5.0, 7.0), False),
        ("point", (0.0, 0.0, 7.0), False),
        ("point", (0.0, 0.0, 7.0), True),
    ]


def test_other_gestures_are_left_to_the_view(clicks, mouse):
    reader, asked = clicks
    for event in ("MouseMove", "LeftButtonRelease", "RightButtonPress", "MouseWheelForward"):
        assert not mouse.act(reader, event, 10, 10)
    assert not mouse.act(reader, "LeftButtonPress", 10, 10, shift=1)
    assert not mouse.act(reader, "LeftButtonPress", 10, 10, alt=1)
    # The view would fill the window with itself.
    assert mouse.act(reader, "LeftButtonDoubleClick", 10, 10)
    assert not mouse.act(reader, "LeftButtonDoubleClick", 10, 10, shift=1)
    assert asked == []


def test_a_press_on_something_to_be_dragged_is_left_to_the_view(mouse):
    from SAMFineTunePanel.effect.clicks import EffectClicks

    correction = Recorded()
    reader = EffectClicks(correction.addPoint, correction.addBox, lambda xy, node: xy[0] < 50)
    assert not mouse.act(reader, "LeftButtonPress", 49, 10) and correction.asked == []
    assert mouse.act(reader, "LeftButtonPress", 50, 10) and len(correction.asked) == 1


def test_a_box_is_dragged(clicks, mouse):
    reader, asked = clicks
    reader.drawsBox = True
    assert mouse.act(reader, "LeftButtonPress", 100, 50) and reader.corners == ((100, 50),) * 2
    assert mouse.act(reader, "MouseMove", 110, 60) and reader.corners == ((100, 50), (110, 60))
    assert asked == []
    assert mouse.act(reader, "LeftButtonRelease", 120, 40)
    assert asked == [("box", (0.0, 0.0, 7.0), (-10.0, -5.0, 7.0))]
    assert reader.corners is None and not reader.drawsBox
    assert not mouse.act(reader, "MouseMove", 130, 60)


def test_a_box_that_was_begun_can_be_dropped(clicks, mouse):
    reader, asked = clicks
    reader.drawsBox = True
    mouse.act(reader, "LeftButtonPress", 100, 50)
    reader.cancelBox()
    assert not mouse.act(reader, "LeftButtonRelease", 120, 40) and asked == []


def test_the_outline_of_a_box_is_where_it_is_drawn():
    from SAMFineTunePanel.effect.box_outline import BoxOutline

    outline = BoxOutline()
    assert not outline.actor.GetVisibility()
    outline.show(((10, 50), (30, 20)))
    assert outline.actor.GetVisibility()
    assert outline.actor.GetMapper().GetInput().GetBounds()[:4] == (10.0, 30.0, 20.0, 50.0)
    outline.show(None)
    assert not outline.actor.GetVisibility()


# The correction follows the editor


@pytest.fixture
def session():
    from SAMFineTunePanel.effect.editor_correction import EditorCorrection

    changes = []
    made = EditorCorrection(Recorded(), lambda: changes.append(1), lambda: None)
    yield made, made.correction, changes
    made.cleanup()
    assert made.correction.listeners == []


def ids(editor) -> list[str]:
    return list(editor.GetSegmentationNode().GetSegmentation().GetSegmentIDs())


def test_the_selected_segment_is_corrected(session, editor):
    session, correction, _changes = session
    liver, spleen = ids(editor)
    session.begin(editor)
    editor.SetSelectedSegmentID(spleen)
    editor.SetMaskMode(1)
    session.end()
    editor.SetSelectedSegmentID(liver)
    # Not closed in between: the worker serves both.
    assert correction.asked == [("open", liver, ""), ("open", spleen, ""), ("close",)]


def test_a_segment_that_cannot_be_corrected_leaves_nothing_open(session, editor):
    session, correction, _changes = session
    liver, spleen = ids(editor)
    session.begin(editor)
    correction.refusal = "made of surfaces"
    editor.SetSelectedSegmentID(spleen)
    assert session.problem == "made of surfaces" and not correction.session.isOpen
    correction.refusal = ""
    editor.SetSelectedSegmentID(liver)
    assert session.problem == "" and correction.session.isOpen


def test_without_a_selection_it_says_what_is_missing(session, editor):
    session, correction, changes = session
    editor.SetSelectedSegmentID("")
    session.begin(editor)
    assert correction.asked == [] and "Choose a source volume" in session.problem and changes
    editor.SetSelectedSegmentID(ids(editor)[0])
    assert session.problem == "" and correction.session.isOpen
    editor.SetAndObserveSourceVolumeNode(None)
    assert not correction.session.isOpen and session.problem


def test_what_is_open_already_is_joined_and_not_closed(session, editor):
    session, correction, _changes = session
    liver = ids(editor)[0]
    correction.open(editor.GetSourceVolumeNode(), editor.GetSegmentationNode(), liver)
    session.begin(editor)
    session.end()
    assert correction.asked == [("open", liver, None)] and correction.session.isOpen


def test_a_correction_that_closed_itself_is_started_again_on_demand(session, editor):
    session, correction, _changes = session
    session.begin(editor)
    correction.close()
    editor.SetMaskMode(1)
    assert not correction.session.isOpen
    session.startAgain()
    assert correction.session.isOpen


def test_another_model_opens_it_anew(session, editor):
    session, correction, _changes = session
    liver = ids(editor)[0]
    session.chooseModel("tuned")
    session.begin(editor)
    session.chooseModel("tuned")
    session.chooseModel("")
    opened = [each for each in correction.asked if each[0] == "open"]
    assert opened == [("open", liver, "tuned"), ("open", liver, "")]


def test_refusals_are_shown_until_the_next_deed(session, editor):
    session, correction, _changes = session
    correction.refusal = "no such place"
    session.begin(editor)
    assert session.problem == "no such place"
    correction.refusal = ""
    session.attempt(correction.accept)
    assert session.problem == "" and correction.asked == [("accept",)]


def test_mask_and_prompts_are_shown_while_the_effect_is_active(session, editor, mouse):
    import slicer
    from SAMFineTunePanel.correction.slice_correction import SliceCorrection

    from SAMFineTuneLib.interactive.protocol import Box, Point

    session, correction, _changes = session
    before = slicer.mrmlScene.GetNumberOfNodes()
    session.begin(editor)
    correction.session.preview = {3: np.ones(SHAPE[1:], bool)}
    prompts = (Point(at=(4.0, 5.0, 3.0)), Box(corners=((0.0, 0.0, 3.0), (9.0, 9.0, 3.0))))
    correction.session.current = SliceCorrection(prompts)
    correction.news()
    assert slicer.mrmlScene.GetNumberOfNodes() > before
    assert slicer.mrmlScene.GetFirstNodeByName("Proposed mask")
    # Half a millimetre a pixel; R grows to the left of an axial view.
    for x, y, taken in ((92, 60, True), (92, 67, True), (92, 70, False), (82, 68, True)):
        assert session.isOnPrompt((x, y), mouse.slice_node) is taken, (x, y)
    session.end()
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert not session.isOnPrompt((92, 60), mouse.slice_node)


def test_an_editor_of_something_else_has_no_say_in_an_accept(session, editor):
    session, correction, _changes = session
    session.begin(editor)
    session.accept()
    assert correction.editor.node is editor
    volume = editor.GetSourceVolumeNode()
    other = add_segmentation(volume, {"liver": np.zeros(SHAPE, bool)})
    liver = other.GetSegmentation().GetNthSegmentID(0)
    # From the panel.
    correction.open(volume, other, liver)
    session.accept()
    assert correction.editor is None


# Options


@pytest.fixture
def options(session, editor):
    from SAMFineTunePanel.effect.clicks import EffectClicks
    from SAMFineTunePanel.effect.options import EffectOptions

    session, correction, _changes = session
    reader = EffectClicks(correction.addPoint, correction.addBox, lambda xy, node: False)
    made = EffectOptions(session, reader)
    session._changed = made.update
    made.widget.show()
    session.begin(editor)
    yield made, correction, reader
    made.widget.hide()


def test_buttons_do_what_they_say(options):
    made, correction, _reader = options
    correction.session.history.add("a point", lambda: None, lambda: None)
    correction.session.accepted = {3}
    correction.news()
    made.slicesSpinBox.value = 4
    del correction.asked[:]
    for button in (
        made.undoButton,
        made.clearButton,
        made.acceptButton,
        made.propagateButton,
        made.betweenButton,
    ):
        assert button.enabled, button.text
        button.click()
    assert correction.asked == [("undo",), ("clear",), ("accept",), ("propagate", 4), ("between",)]
    assert "a point" in made.undoButton.toolTip
    assert not made.redoButton.enabled and not made.nextButton.enabled


def test_buttons_choose_what_a_click_means(options):
    made, _correction, reader = options
    assert made.positiveButton.checked
    made.negativeButton.click()
    assert not reader.isPositive and made.negativeButton.checked
    assert not made.positiveButton.checked
    made.boxButton.click()
    assert reader.drawsBox and made.boxButton.checked and not made.negativeButton.checked
    made.boxButton.click()
    assert not reader.drawsBox and made.negativeButton.checked
    made.positiveButton.click()
    assert reader.isPositive


def test_a_model_that_is_chosen_answers_from_then_on(options):
    made, correction, _reader = options
    made.setModels(["a", "b"])
    assert made.chosenModel() == ""
    made.modelComboBox.currentIndex = 2
    assert correction.asked[-1][2] == "b" and made.nextButton.enabled
    made.setModels(["b"])
    assert made.chosenModel() == "b"
    made.setModels([])
    assert made.chosenModel() == ""


def test_a_closed_correction_can_only_be_started_again(options):
    made, correction, _reader = options
    assert not made.startButton.visible
    correction.status.problem = "The worker ended."
    correction.close()
    assert made.startButton.visible and not made.acceptButton.enabled
    assert made.problemLabel.text == "⚠ The worker ended."
    made.startButton.click()
    assert correction.session.isOpen and not made.startButton.visible


# The effect as Slicer holds it


@pytest.fixture
def effect(editor, monkeypatch):
    """The effect of the file that is registered, driving a recorded correction."""
    from SAMFineTunePanel.module_state import theModuleState

    monkeypatch.setitem(sys.modules, "SegmentEditorEffects", effect_base())
    correction = Recorded()
    monkeypatch.setattr(theModuleState(), "correction", correction, raising=False)
    made = make_effect(editor)
    yield made, correction
    made.cleanup()
    assert correction.listeners == []


def test_the_effect_corrects_what_is_selected_while_it_is_active(effect, editor, mouse):
    import vtk

    effect, correction = effect
    assert effect.scriptedEffect.name == "SAM correct" and len(effect.scriptedEffect.widgets) == 1
    assert not effect.icon().isNull() and "Ctrl" in effect.helpText()
    effect.activate()
    view = View(mouse.slice_node)
    mouse.interactor.SetEventInformation(100, 50, 0, 0)
    press = vtk.vtkCommand.LeftButtonPressEvent
    assert effect.processInteractionEvents(mouse.interactor, press, view) is True
    solid = View(None, "qMRMLThreeDWidget")
    assert effect.processInteractionEvents(mouse.interactor, press, solid) is False
    correction.refusal = "The point lies outside."
    assert effect.processInteractionEvents(mouse.interactor, press, view) is True
    assert effect._options.problemLabel.text == "⚠ The point lies outside."
    correction.refusal = ""
    assert len(effect.scriptedEffect.actors) == 1
    effect.deactivate()
    assert effect.scriptedEffect.actors == []
    assert correction.asked == [
        ("open", ids(editor)[0], ""),
        ("point", (0.0, 0.0, 7.0), True),
        ("close",),
    ]


def test_the_effect_accepts_for_the_editor_that_it_belongs_to(effect, editor):
    effect, correction = effect
    effect.activate()
    effect._options.acceptButton.click()
    assert correction.asked[-1] == ("accept",) and correction.editor.node is editor
    assert effect.scriptedEffect.saved == 0
    correction.editor.saveState()
    assert effect.scriptedEffect.saved == 1


def test_the_effect_is_registered_where_slicer_has_effects(monkeypatch):
    from SAMFineTunePanel.effect import registration as effect_registration

    registered = []

    class Scripted:
        def __init__(self, parent) -> None:
            self.source = ""

        def setPythonSource(self, path: str) -> bool:
            self.source = path
            return path.endswith(".py")

        def self(self):
            return types.SimpleNamespace(register=lambda: registered.append(self.source))

    effects = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    effects.qSlicerSegmentEditorScriptedEffect = Scripted
    # Without the module nothing happens, and nothing fails.
    effect_registration.registerEffect()
    monkeypatch.setitem(sys.modules, effects.__name__, effects)
    effect_registration.registerEffect()
    assert registered == [effect_registration.EFFECT_FILE.as_posix()]
    assert effect_registration.EFFECT_FILE.is_file()
    monkeypatch.setattr(Scripted, "setPythonSource", lambda self, path: False)
    effect_registration.registerEffect()
    assert len(registered) == 1


# With the correction itself, answered by a pretended worker


def test_a_click_in_the_editor_becomes_voxels_within_its_rules(
    editor, mouse, monkeypatch, process_events
):
    import slicer
    from SAMFineTunePanel.correction.correction import Correction
    from SAMFineTunePanel.effect.clicks import EffectClicks
    from SAMFineTunePanel.effect.editor_correction import EditorCorrection

    from Testing.support.correction_workers import pretend, wait_until_idle

    pretend(monkeypatch)
    correction = Correction()
    session = EditorCorrection(correction, lambda: None, lambda: None)
    reader = EffectClicks(
        lambda ras, positive: session.attempt(lambda: correction.addPoint(ras, positive)),
        lambda first, second: session.attempt(lambda: correction.addBox(first, second)),
        session.isOnPrompt,
    )
    segmentation, volume = editor.GetSegmentationNode(), editor.GetSourceVolumeNode()
    # The editor of the module Segment Editor, whose rules hold.
    node = slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag("SegmentEditor")
    node.Copy(editor)
    node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetSelectedSegmentID(ids(editor)[1])
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    session.begin(node)
    wait_until_idle(correction, process_events)
    assert session.problem == "" and correction.session.state == "ready"
    mouse.slice_node.SetSliceOffset(3.0)
    mouse.act(reader, "LeftButtonPress", 84, 64)
    wait_until_idle(correction, process_events)
    assert session.problem == "" and len(correction.session.current.prompts) == 1
    mask = correction.session.current.mask
    session.attempt(correction.accept)

    def held(number: int) -> np.ndarray:
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, ids(editor)[number], volume)

    expected = np.zeros(SHAPE, bool)
    expected[3] = mask
    liver = box(SHAPE, (1, 5), (2, 8), (3, 9))
    assert np.array_equal(held(1) > 0, expected & ~liver) and (expected & liver).any()
    assert np.array_equal(held(0) > 0, liver) and "kept" in session.text
    session.attempt(correction.undo)
    assert not held(1).any() and session.problem == ""
    session.cleanup()
    assert not correction.session.isOpen
    correction.endForClosing()


def editor_choices(segmentation, volume, tag: str = ""):
    """An editor's node; with a tag, that of Slicer's module Segment Editor."""
    import slicer

    node = slicer.vtkMRMLSegmentEditorNode()
    if tag:
        node.SetSingletonTag(tag)
    node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(volume)
    return node


@pytest.mark.parametrize("behaviour", ["well", "slow"])
def test_an_editor_of_another_module_has_its_own_rules_and_undo(
    behaviour, editor, monkeypatch, process_events
):
    """The editor's node has no singleton tag; Slicer's own Segment Editor is open beside it."""
    import slicer
    from SAMFineTunePanel.correction.correction import Correction
    from SAMFineTunePanel.effect.editor_correction import EditorCorrection

    from Testing.support.correction_workers import pretend, wait_until_idle

    segmentation, volume = editor.GetSegmentationNode(), editor.GetSourceVolumeNode()
    liver, spleen = ids(editor)

    def held(segment_id: str) -> np.ndarray:
        return (
            slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)[3].copy()
            > 0
        )

    before, saved, saved_by_slicer = held(liver), [], []
    own = editor_choices(segmentation, volume, "SegmentEditor")
    widget = types.SimpleNamespace(
        editor=types.SimpleNamespace(
            segmentationNodeID=segmentation.GetID,
            saveStateForUndo=lambda: saved_by_slicer.append(1),
        )
    )
    monkeypatch.setattr(slicer.modules, "SegmentEditorWidget", widget, raising=False)
    embedded = editor_choices(segmentation, volume)
    assert own is not embedded and own.GetOverwriteMode() == own.OverwriteAllSegments
    embedded.SetSelectedSegmentID(spleen)
    embedded.SetOverwriteMode(embedded.OverwriteNone)
    pretend(monkeypatch, behaviour)
    correction = Correction()
    session = EditorCorrection(correction, lambda: None, lambda: saved.append(held(spleen)))
    session.begin(embedded)
    wait_until_idle(correction, process_events)
    session.attempt(lambda: correction.addPoint((5, 5, 3)))
    if behaviour == "well":
        wait_until_idle(correction, process_events)
    session.attempt(session.accept)
    wait_until_idle(correction, process_events)
    assert session.problem == "" and correction.session.accepted == {3}
    assert held(spleen).any() and (held(spleen) & before).any()
    assert np.array_equal(held(liver), before)
    assert len(saved) == 1 and not saved[0].any() and saved_by_slicer == []
    correction.undo()
    # The panel goes by Slicer's own editor.
    correction.accept()
    assert np.array_equal(held(liver), before & ~held(spleen)) and saved_by_slicer == [1]
    session.cleanup()
    correction.endForClosing()
