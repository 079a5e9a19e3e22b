"""What comes between in a correction: workers that die, and a scene that changes."""

from __future__ import annotations

import shutil

import numpy as np
import psutil
import pytest

from Testing.support.corrected_scene import Heard, disc, held, ras, segment_id
from Testing.support.correction_workers import pretend, session_folders
from Testing.support.scene_builders import (
    add_transform,
    placement,
)


@pytest.mark.parametrize("behaviour", ["die", "die+garbage"])
def test_a_worker_that_dies_is_started_again_and_nothing_is_lost(opened, nodes, settle, behaviour):
    correction = opened(behaviour, start="segment")
    heard = Heard(correction)
    correction.addPoint(ras(correction, 25, 20, 4))
    settle()
    mask = held(nodes[1], "liver", nodes[0])[4] | disc(20, 25)
    assert (correction.session.preview[4] == mask).all() and "started again" in heard.said
    assert "RuntimeError: pretended" in heard.said
    correction.accept()
    assert correction.session.accepted == {4}


def test_a_worker_that_is_killed_between_question_and_answer(opened, settle):
    correction = opened("slow", start="nothing")
    first = correction.session.processID
    correction.addPoint(ras(correction, 25, 20, 4))
    psutil.Process(first).kill()
    settle()
    assert (
        correction.session.preview[4] == disc(20, 25)
    ).all() and correction.session.processID != first


def test_a_second_death_closes_the_session_in_words(opened, nodes, process_events):
    volume, segmentation = nodes
    before = held(segmentation, "liver", volume)
    correction = opened("die_always")
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: not correction.session.isOpen)
    assert (
        "RuntimeError: pretended" in correction.status.problem
        and "closed" in correction.status.problem
    )
    assert (held(segmentation, "liver", volume) == before).all()
    process_events(lambda: session_folders() == [])


def test_a_worker_that_cannot_start_is_told(opened):
    correction = opened("leave")
    assert (
        not correction.session.isOpen
        and "ImportError: no network here" in correction.status.problem
    )


def test_a_refusal_keeps_the_session(opened, settle, process_events):
    correction = opened("refuse")
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: correction.status.problem)
    assert correction.status.problem == "No. Ask another." and correction.session.isOpen
    assert not correction.isWorking
    correction.look(7)
    correction.addPoint(ras(correction, 25, 20, 7))
    process_events(lambda: not correction.isWorking)
    with pytest.raises(ValueError, match="no mask to accept"):
        correction.accept()


def test_the_folder_of_an_open_session_is_in_use(opened):
    from SAMFineTuneLib.jobs.storage import clear_storage, storage_used

    opened()
    assert storage_used().running == 1 and storage_used().other_jobs == []
    clear_storage()
    (folder,) = session_folders()
    assert (folder / "session.json").is_file()


def test_a_folder_that_is_removed_ends_the_session_at_the_next_death(opened, process_events):
    correction = opened("die")
    for folder in session_folders():
        shutil.rmtree(folder)
    correction.addPoint(ras(correction, 25, 20, 4))
    process_events(lambda: not correction.session.isOpen)
    assert "folder was removed" in correction.status.problem


def test_a_full_disk_is_told(correction, nodes, monkeypatch, process_events):
    import errno

    from SAMFineTunePanel.scene import raw_nrrd

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    pretend(monkeypatch)
    monkeypatch.setattr(raw_nrrd, "write", full)
    correction.open(*nodes, segment_id(nodes[1], "liver"))
    process_events(lambda: not correction.session.isOpen)
    assert "No space left" in correction.status.problem and session_folders() == []


@pytest.mark.parametrize("what", ["volume", "segmentation", "segment"])
def test_what_is_removed_closes_the_session(opened, nodes, process_events, what):
    import slicer

    volume, segmentation = nodes
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    if what == "segment":
        segmentation.GetSegmentation().RemoveSegment(segment_id(segmentation, "liver"))
    else:
        slicer.mrmlScene.RemoveNode(volume if what == "volume" else segmentation)
    process_events(lambda: not correction.session.isOpen)
    assert "removed" in correction.status.problem
    process_events(lambda: session_folders() == [])


def test_a_prompt_right_after_a_removal_is_refused(opened, nodes):
    import slicer

    correction = opened()
    place = ras(correction, 25, 20, 4)
    slicer.mrmlScene.RemoveNode(nodes[1])
    with pytest.raises(ValueError, match="removed"):
        correction.addPoint(place)
    assert not correction.session.isOpen


def test_closing_the_scene_closes_the_session(opened, scene, process_events):
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    scene.Clear(0)
    assert not correction.session.isOpen and correction.status.problem == ""
    process_events(lambda: session_folders() == [])


def test_a_moved_volume_is_followed(opened, nodes, settle, process_events):
    volume, _segmentation = nodes
    correction = opened(start="nothing")
    process = correction.session.processID
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    heard = Heard(correction)
    add_transform(placement(origin=(100.0, 0.0, 0.0)), volume)
    process_events(lambda: "prompts" in heard.events)
    assert correction.session.processID == process and correction.session.isOpen
    correction.addPoint(ras(correction, 10, 20, 6))
    settle()
    assert (correction.session.preview[6] == (disc(20, 25) | disc(20, 10))).all()


def test_an_edited_volume_is_read_anew_and_prompts_stay(opened, nodes, settle, process_events):
    import slicer

    volume, _segmentation = nodes
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    process, heard = correction.session.processID, Heard(correction)
    slicer.util.arrayFromVolume(volume)[:] = 7
    slicer.util.arrayFromVolumeModified(volume)
    process_events(lambda: "read anew" in heard.said)
    settle()
    assert correction.session.processID not in (0, process)
    assert (correction.session.preview[6] == disc(20, 25)).all()


def test_a_volume_of_another_size_closes_the_session(opened, nodes, settle, process_events):
    import slicer

    volume, _segmentation = nodes
    correction = opened()
    correction.addPoint(ras(correction, 25, 20, 4))
    settle()
    slicer.util.updateVolumeFromArray(volume, np.zeros((9, 20, 20), np.int16))
    process_events(lambda: not correction.session.isOpen)
    assert "another size" in correction.status.problem


def test_edits_of_others_are_not_taken_back(opened, nodes, settle):
    import slicer

    volume, segmentation = nodes
    correction = opened(start="nothing")
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    correction.accept()
    mask = held(segmentation, "liver", volume)
    mask[6, 20, 25] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), segmentation, segment_id(segmentation, "liver"), volume
    )
    with pytest.raises(ValueError, match="edited since"):
        correction.undo()
    assert (
        held(segmentation, "liver", volume) == mask
    ).all() and correction.session.history.canUndo()


def test_another_segment_uses_the_same_worker(opened, nodes, correction, settle):
    volume, segmentation = nodes
    opened(start="nothing")
    process = correction.session.processID
    correction.close(keepWorker=True)
    assert not correction.session.isOpen
    correction.open(volume, segmentation, segment_id(segmentation, "cyst"), start="nothing")
    assert correction.session.state == "ready" and correction.session.processID == process
    correction.addPoint(ras(correction, 25, 20, 6))
    settle()
    correction.accept()
    assert held(segmentation, "cyst", volume)[6, 20, 25]
