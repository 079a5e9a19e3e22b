"""The Segment Editor's effect: clicks, and the voxels that come of them."""

from __future__ import annotations

import types

import numpy as np
import pytest

from Testing.support.recorded_correction import SHAPE, Recorded, ids
from Testing.support.scene_builders import box

pytestmark = pytest.mark.usefixtures("module", "scene")


# Clicks


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
