"""The Segment Editor's effect: its options, and the correction that follows the editor.

The effect's class itself is held by Slicer's C++ effects; here a strict stand-in holds it.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from Testing.support.recorded_correction import SHAPE, Recorded, RecordedSession, ids
from Testing.support.scene_builders import add_segmentation
from Testing.support.scripted_effect import View, effect_base, make_effect

pytestmark = pytest.mark.usefixtures("module", "scene")


def test_the_stand_in_has_only_names_of_the_correction():
    from SAMFineTunePanel.correction.correction import Correction

    own = {*vars(Recorded), *vars(Recorded())}
    known = {*dir(Correction), *vars(Correction())}
    extra = {name for name in own if not name.startswith("_")} - known
    assert extra == {"asked", "listeners", "refusal", "editor", "news"}
    own = {*vars(RecordedSession), *vars(RecordedSession())}
    known = {*dir(Correction().session), *vars(Correction().session)}
    assert {name for name in own if not name.startswith("_")} <= known


# The correction follows the editor


@pytest.fixture
def session():
    from SAMFineTunePanel.effect.editor_correction import EditorCorrection

    changes = []
    made = EditorCorrection(Recorded(), lambda: changes.append(1), lambda: None)
    yield made, made.correction, changes
    made.cleanup()
    assert made.correction.listeners == []


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
    correction.session.isSingleSlice = True
    correction.news()
    for button in (made.propagateButton, made.betweenButton):
        assert not button.enabled and "single slice" in button.toolTip


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
