"""Corrections that start from the mask of a tuned model."""

from __future__ import annotations

import os

import numpy as np
import pytest

from Testing.support.corrected_scene import SHAPE, disc, held, paint, ras, segment_id
from Testing.support.correction_workers import pretend


def test_a_model_shows_its_own_mask_and_says_where_it_is_uncertain(
    opened, nodes, tmp_path, monkeypatch, settle, process_events
):
    from Testing.support.model_files import write_model

    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))
    write_model(tmp_path / "tuned.safetensors", ["model"])
    _volume, segmentation = nodes
    segment = segmentation.GetSegmentation().GetSegment(segment_id(segmentation, "liver"))
    correction = opened(model="tuned")
    assert correction.session.label is None
    # What an apply calls a structure of a model that has no name for it.
    segment.SetName("Segment_2")
    assert correction.session.label == 2
    segment.SetName("model")
    assert correction.session.label == 1
    correction.look(0)
    settle()
    assert correction.session.current.start == "model" and correction.session.preview[0].sum() == 9
    correction.look(4)
    settle()
    assert correction.session.preview == {}
    for number in (8, 7):
        correction.nextUncertain()
        process_events(lambda number=number: correction.session.number == number)
    assert "least certain" in correction.status.text
    settle()
    correction.accept()
    assert correction.session.accepted == {7}
    correction.look(8)
    correction.startFrom("nothing")
    assert correction.session.preview == {}


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """The file of a tuned model that finds what the pretended worker finds."""
    from Testing.support.model_files import write_model

    monkeypatch.setenv("SAMFINETUNE_MODELS", str(tmp_path))
    return write_model(tmp_path / "tuned.safetensors", ["model"])


@pytest.fixture
def model_segment(nodes):
    """The segment liver, which has the name of the model's structure."""
    segment = nodes[1].GetSegmentation().GetSegment(segment_id(nodes[1], "liver"))
    segment.SetName("model")
    return segment


@pytest.fixture
def opened_with_model(tuned, correction, nodes, model_segment, monkeypatch, settle):
    """Opens a session with the tuned model; slice 7 is in view."""

    def start(**more):
        pretend(monkeypatch)
        correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned", **more)
        settle()
        correction.look(7)
        settle()
        return correction

    return start


def test_a_slice_that_was_accepted_is_not_called_in_question(opened_with_model, nodes, settle):
    correction = opened_with_model(start="model")
    correction.addPoint(ras(correction, 3, 3, 7), positive=False)
    settle()
    correction.accept()
    correction.look(8)
    settle()
    assert correction.session.preview[8].any()
    correction.look(7)
    settle()
    assert correction.session.preview == {} and correction.session.accepted == {7}
    correction.addPoint(ras(correction, 25, 20, 7))
    settle()
    assert correction.session.current.start == "model" and correction.session.preview[7][20, 25]


def test_what_was_propagated_takes_the_place_of_the_models_own_mask(
    opened_with_model, nodes, settle
):
    correction = opened_with_model()
    assert correction.session.current.start == "model" and correction.session.preview[7].sum() == 9
    correction.look(4)
    settle()
    correction.accept()
    correction.propagate(3)
    settle()
    propagated = correction.session.propagated[7]
    correction.look(7)
    settle()
    assert propagated.sum() > 9 and (correction.session.preview[7] == propagated).all()
    correction.addPoint(ras(correction, 30, 15, 7))
    settle()
    assert correction.session.current.start == "given"
    assert (correction.session.preview[7] == (propagated | disc(15, 30))).all()
    correction.undo()
    settle()
    correction.accept()
    assert (held(nodes[1], "model", nodes[0])[7] == propagated).all()
    correction.undo()
    correction.undo()
    correction.look(4)
    correction.look(7)
    settle()
    assert correction.session.propagated == {} and correction.session.preview[7].sum() == 9


def test_what_was_painted_beside_the_models_own_mask_survives_its_accept(
    opened_with_model, nodes, model_segment
):
    correction = opened_with_model()
    model_segment.SetName("liver")
    paint(nodes, 7, (30, 35), (2, 7))
    correction.accept()
    expected = np.zeros(SHAPE[1:], bool)
    expected[2:5, 2:5] = expected[30:35, 2:7] = True
    assert (held(nodes[1], "liver", nodes[0])[7] == expected).all()
    correction.undo()
    expected[2:5, 2:5] = False
    assert (held(nodes[1], "liver", nodes[0])[7] == expected).all()


def test_a_segment_that_is_renamed_stays_the_structure_it_was(
    tuned, correction, nodes, model_segment, monkeypatch, settle
):
    pretend(monkeypatch)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    correction.look(0)
    model_segment.SetName("liver of Monday")
    correction.addPoint(ras(correction, 25, 20, 0))
    settle()
    assert correction.session.label == 1 and correction.status.problem == ""
    assert correction.session.preview[0][3, 3] and correction.session.preview[0][20, 25]


def test_a_model_that_was_replaced_is_read_anew(
    tuned, correction, nodes, model_segment, monkeypatch, settle
):
    pretend(monkeypatch)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    first = correction.session.processID
    correction.close(keepWorker=True)
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    assert correction.session.processID == first
    correction.close(keepWorker=True)
    os.utime(tuned, ns=(1, 1))
    correction.open(*nodes, segment_id(nodes[1], "model"), model="tuned")
    settle()
    assert correction.session.state == "ready" and correction.session.processID != first
