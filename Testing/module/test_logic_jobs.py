"""Jobs from the logic: started, watched, cancelled, killed, resumed.

A pretended worker does those jobs whose work is of no account, real ones do those of the module's
own test, and where nothing but what is learnt counts, this process learns it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from Testing.support import job_workers
from Testing.support.time_limits import PATIENCE_S, within

pytestmark = pytest.mark.usefixtures("module", "scene")

# Far more than a test waits for.
ENDLESS = 100_000
# What a network has learnt before is of no account here, nor whether its weights can be had.
UNTAUGHT = {"weights": "random"}


@pytest.fixture
def phantom(module, scene):
    from SAMFineTunePanel.module_test import labelSlices, makeVolume

    volume, truth = makeVolume()
    return volume, labelSlices(volume, truth), truth


@pytest.fixture
def model(pretended_worker, logic):
    """A tuned model that finds the phantom's structure; nobody has trained it."""
    yield from untrained_model(logic)


@pytest.fixture
def model_of_this_process(pretended, logic):
    """The same, of a worker that is no process: for what comes after it."""
    yield from untrained_model(logic)


def untrained_model(logic):
    model = job_workers.write_model("pretended", "ellipsoid")
    yield model
    logic.deleteModel(model)


def endless(logic, phantom, **settings):
    return logic.fineTune(
        *phantom[:2],
        **{"steps": ENDLESS, "minutes": 30, "inputSize": 256, "blocking": False},
        **UNTAUGHT,
        **settings,
    )


def passes(job, step: int) -> Callable[[], bool]:
    """Whether a job is beyond a step; fails at once, in its words, where it has ended instead."""

    def passed() -> bool:
        assert not job.isFinished, f"{job.state}: {job.errorMessage}"
        return job.step > step

    return passed


def family(pid: int) -> list[psutil.Process]:
    worker = psutil.Process(pid)
    return [worker, *worker.children(recursive=True)]


def job_folders() -> list[Path]:
    folder = Path(os.environ["SAMFINETUNE_CACHE"]) / "jobs"
    return list(folder.iterdir()) if folder.is_dir() else []


def test_the_modules_own_test(module):
    import slicer

    from SAMFineTune import SAMFineTuneTest

    SAMFineTuneTest().runTest()
    assert job_folders() == [] and slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode") == []


def test_cancel_while_the_inputs_are_written(logic, phantom):
    job = endless(logic, phantom)
    assert job.state == "preparing" and job_folders()
    job.cancel()
    assert job.state == "cancelled" and job_folders() == []


def test_finish_now_keeps_the_best(pretended_worker, logic, phantom, process_events):
    job = endless(logic, phantom, name="early")
    assert not job.canFinishNow
    process_events(passes(job, 5))
    assert job.canFinishNow
    job.finishNow()
    model = job.wait()
    assert model.name == "early" and model.card.training["ending"] == "finished on request"
    assert job.state == "done" and job_folders() == []
    logic.deleteModel(model)


def test_one_job_at_a_time_is_refused_in_words(pretended_worker, logic, phantom):
    from SAMFineTunePanel.jobs.job import JobRunningError

    job = endless(logic, phantom, name="first")
    with pytest.raises(JobRunningError, match="Fine-tune first is at work"):
        endless(logic, phantom, name="second")
    assert logic.job is job


def test_a_fine_tune_outlives_the_scene_and_keeps_nothing_of_it(
    pretended_worker, logic, process_events
):
    import gc

    import slicer
    from SAMFineTunePanel.module_test import labelSlices, makeVolume

    freed = set()

    def begin():
        volume, truth = makeVolume()
        nodes = volume, labelSlices(volume, truth)
        for node in nodes:
            name = node.GetName()
            node.AddObserver("DeleteEvent", lambda caller, event, name=name: freed.add(name))
        return endless(logic, nodes, name="outlived")

    job = begin()
    process_events(passes(job, 2))
    slicer.mrmlScene.Clear(0)
    process_events()
    gc.collect()
    assert freed == {"Phantom", "Labels"} and job.state == "running"
    step = job.step
    process_events(passes(job, step))
    job.finishNow()
    assert job.wait().name == "outlived" and job_folders() == []
    logic.deleteModel(job.result)


def test_closing_the_scene_stops_what_needs_it(model, logic, phantom, process_events):
    import slicer
    from SAMFineTunePanel.module_test import makeVolume

    job = endless(logic, phantom)
    assert job.state == "preparing"
    slicer.mrmlScene.Clear(0)
    assert job.state == "cancelled" and job_folders() == []

    volume, _truth = makeVolume()
    job = logic.apply(model, volume, blocking=False)
    process_events(lambda: job.state == "running")
    processes = family(job.processID)
    with within(5, "cancelling"):
        slicer.mrmlScene.Clear(0)
        process_events(lambda: job.isFinished)
    with within(1, "ending its processes"):
        psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert job.state == "cancelled"
    assert job_folders() == [] and slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_a_download_outlives_the_scene(module, tmp_path):
    import slicer
    from SAMFineTunePanel.jobs.job import Job
    from SAMFineTunePanel.module_state import theModuleState

    def download() -> Job:
        return Job(
            "checkpoint", "Fetch weights", tmp_path / "job", (), lambda result: iter([result])
        )

    job = theModuleState().start(download)
    slicer.mrmlScene.Clear(0)
    assert not job.isFinished
    job.cancel()


def test_closing_slicer_stops_a_fine_tune_that_can_be_resumed(
    pretended_worker, logic, phantom, process_events
):
    import slicer

    job = endless(logic, phantom, name="later")
    process_events(passes(job, 2))
    processes = family(job.processID)
    with within(3, "closing Slicer"):
        slicer.app.aboutToQuit.emit()
    with within(1, "ending its processes"):
        psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert job.state == "cancelled" and job.resumable
    [interrupted] = logic.interruptedFineTunes()
    assert interrupted.folder == job.folder and interrupted.output.stem == "later"
    resumed = logic.resume(interrupted)
    # One that is resumed needs nothing of the scene, from its start on.
    slicer.mrmlScene.Clear(0)
    process_events(passes(resumed, 0))
    assert resumed.step >= job.step
    with within(5, "cancelling"):
        resumed.cancel()
        process_events(lambda: resumed.isFinished)
    assert logic.interruptedFineTunes() == [] and job_folders() == []


def test_closing_slicer_leaves_nothing_of_other_jobs(model, logic, phantom, process_events):
    job = endless(logic, phantom)
    logic.cleanup()
    assert job.state == "cancelled" and job_folders() == []
    job = endless(logic, phantom)
    process_events(passes(job, 2))
    # The user has asked for its end.
    job.cancel()
    logic.cleanup()
    assert job.isFinished and job_folders() == []
    job = logic.apply(model, phantom[0], blocking=False)
    process_events(lambda: job.state == "running")
    processes = family(job.processID)
    logic.cleanup()
    with within(1, "ending its processes"):
        psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert job.state == "cancelled"
    assert job_folders() == []


def test_a_worker_killed_in_the_middle_is_resumed(pretended_worker, logic, phantom, process_events):
    """Killed after its first checkpoint; then finished."""
    from SAMFineTuneLib.jobs.folder import JobFolder

    job = endless(logic, phantom, name="resumed")
    process_events(JobFolder(job.folder).has_checkpoint)
    reached = job.step
    with within(10, "seeing that a worker was killed"):
        psutil.Process(job.processID).kill()
        process_events(lambda: job.isFinished)
    assert job.state == "failed" and job.resumable and "ended without a result" in job.errorMessage
    [interrupted] = logic.interruptedFineTunes()
    assert interrupted.labels == ["ellipsoid"] and interrupted.step >= reached
    # Meanwhile another model took the name; it must not be written over.
    interrupted.output.parent.mkdir(parents=True, exist_ok=True)
    interrupted.output.write_bytes(b"another model")
    resumed = logic.resume(interrupted)
    process_events(passes(resumed, 0))
    assert resumed.step > reached * 0.8
    resumed.finishNow()
    model = resumed.wait()
    assert model.name == "resumed 2" and interrupted.output.read_bytes() == b"another model"
    interrupted.output.unlink()
    assert logic.interruptedFineTunes() == [] and job_folders() == []
    logic.deleteModel(model)


def test_a_worker_that_dies_before_its_first_checkpoint(
    pretended_worker, logic, phantom, process_events
):
    job = endless(logic, phantom)
    process_events(passes(job, 2))
    with within(10, "seeing that a worker was killed"):
        psutil.Process(job.processID).kill()
        process_events(lambda: job.isFinished)
    assert job.state == "failed" and not job.resumable
    assert logic.interruptedFineTunes() == [] and job_folders() == []


def test_python_that_cannot_be_started(logic, phantom, monkeypatch):
    from SAMFineTunePanel.jobs.job import JobFailedError
    from SAMFineTunePanel.worker import qprocess_transport

    monkeypatch.setattr(qprocess_transport, "pythonProgram", lambda: Path("/no/such/python"))
    with pytest.raises(JobFailedError, match="Python cannot be started"):
        logic.fineTune(*phantom[:2])


def test_the_workers_words_are_the_exceptions(pretended_worker, logic, phantom, tmp_path):
    from SAMFineTunePanel.jobs.job import JobFailedError

    damaged = tmp_path / "weights.pt"
    damaged.write_bytes(b"no weights")
    with pytest.raises(JobFailedError, match=r"weights\.pt"):
        logic.fineTune(*phantom[:2], backbone="vit_t", checkpoint=str(damaged))
    assert job_folders() == []


def test_settings_that_do_not_fit_are_refused_before_anything_starts(logic, phantom):
    from SAMFineTuneLib.errors import InputError

    before = logic.job
    with pytest.raises(InputError, match="input_size"):
        logic.fineTune(*phantom[:2], inputSize=300)
    with pytest.raises(InputError, match="weights"):
        logic.fineTune(*phantom[:2], weights="none")
    for contrary in ({"startFrom": "first"}, {"checkpoint": "weights.pt"}):
        with pytest.raises(ValueError, match="Random weights exclude"):
            logic.fineTune(*phantom[:2], **UNTAUGHT, **contrary)
    with pytest.raises(ValueError, match="stepz is no setting"):
        logic.fineTune(*phantom[:2], stepz=3)
    with pytest.raises(ValueError, match="has no segment liver"):
        logic.fineTune(*phantom[:2], ["liver"])
    with pytest.raises(ValueError, match="A volume and its segmentation"):
        logic.fineTune()
    assert logic.job is before and job_folders() == []


def test_several_volumes_uncertainty_and_an_existing_segmentation(pretended, logic, phantom):
    import slicer

    volume, labels, truth = phantom
    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volume, "Second")
    model = logic.fineTune(volume, labels, steps=10, batch=2, inputSize=256, **UNTAUGHT)
    assert model.name == "ellipsoid"
    nodes = logic.apply(model, [volume, second], uncertainty=True)
    assert [node.GetName() for node in nodes] == ["Phantom ellipsoid", "Second ellipsoid"]
    found = [voxels(node, "ellipsoid", volume) for node in nodes]
    assert np.array_equal(*found) and found[0].any()
    doubt = slicer.util.arrayFromVolume(slicer.util.getNode("Phantom uncertainty"))
    assert doubt.shape == truth.shape and 0 <= doubt.min() < doubt.max() <= 1

    logic.addExample(volume, labels)
    suggested = logic.suggestSlice(0)
    assert (
        suggested is not None
        and suggested not in logic.exampleSlices(logic.getParameterNode().examples[0]).labelled
    )
    with pytest.raises(ValueError, match="is an example to learn from and would be replaced"):
        logic.apply(model, volume, labels)
    before = voxels(nodes[1], "ellipsoid", second)
    nodes[1].GetSegmentation().AddEmptySegment("", "mine")
    assert logic.apply(model, second, nodes[1]) is nodes[1]
    assert list(nodes[1].GetSegmentation().GetSegmentIDs()).__len__() == 2
    assert np.array_equal(voxels(nodes[1], "ellipsoid", second), before) and logic.canUndoApply(
        nodes[1]
    )
    nodes[1].GetSegmentation().AddEmptySegment("", "later")
    # Edited since: the edits would be lost.
    assert not logic.canUndoApply(nodes[1])
    logic.undoApply(nodes[0])
    assert not slicer.mrmlScene.IsNodePresent(nodes[0])
    names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
    assert names == {"Phantom", "Second", "Second uncertainty"}
    logic.deleteModel(model)


def test_a_volume_removed_while_it_is_segmented(model, logic, phantom, process_events):
    import slicer

    volume = phantom[0]
    job = logic.apply(model, volume, blocking=False)
    process_events(lambda: job.state == "running")
    slicer.mrmlScene.RemoveNode(volume)
    process_events(lambda: job.isFinished)
    assert job.state == "failed" and "Phantom was removed from the scene" in job.errorMessage
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def voxels(segmentation, name: str, volume) -> np.ndarray:
    import slicer

    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)


def test_closing_the_scene_frees_the_images(pretended_worker, logic, process_events):
    """Qt keeps finished jobs until Slicer ends; they must not keep what they worked on."""
    import gc

    import slicer
    from SAMFineTunePanel.module_test import labelSlices, makeVolume

    freed = set()

    def work() -> None:
        volume, truth = makeVolume()
        labels = labelSlices(volume, truth)
        logic.addExample(volume, labels)
        model = logic.fineTune(volume, labels, steps=3, inputSize=256, **UNTAUGHT)
        segmentation = logic.apply(model, volume)
        logic.deleteModel(model)
        for node in (volume, labels, segmentation):
            name = node.GetName()
            node.AddObserver("DeleteEvent", lambda caller, event, name=name: freed.add(name))

    work()
    slicer.mrmlScene.Clear(0)
    process_events()
    gc.collect()
    assert freed == {"Phantom", "Labels", "Phantom ellipsoid"}


def test_what_is_no_volume_or_segmentation_is_refused_in_words(logic, phantom):
    volume, labels, _ = phantom
    for call, words in (
        (lambda: logic.fineTune(labels, volume), "A volume node is needed, not Labels"),
        (lambda: logic.fineTune(volume, volume), "A segmentation node is needed, not Phantom"),
        (lambda: logic.fineTune("Phantom", labels), "A volume node is needed, not 'Phantom'"),
        (lambda: logic.fineTune(volume, labels, orientation="up"), "up is no orientation"),
        (lambda: logic.addExample(volume, None), "A segmentation node is needed, not None"),
        (lambda: logic.apply(None, None), "A volume node is needed, not None"),
        (lambda: logic.apply(None, volume), "Choose a tuned model first"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_two_names_that_differ_in_case_and_going_on_from_their_model(
    small_inputs, logic, phantom, monkeypatch
):
    """Names, numbers and colours stay in a real model, in its results and further on."""
    import slicer

    job_workers.learn_in_process(monkeypatch)
    volume, labels, truth = phantom
    other = labels.GetSegmentation().AddEmptySegment("", "Ellipsoid")
    mask = np.zeros((24, 64, 64), np.uint8)
    mask[[6, 12, 18], 50:60, 5:15] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, labels, other, volume)
    first = logic.fineTune(volume, labels, steps=1, name="first", **UNTAUGHT)
    assert first.card.checkpoint_sha256 is None
    [node] = logic.apply(first, [volume], uncertainty=True)
    drawn, found = labels.GetSegmentation(), node.GetSegmentation()
    names = [found.GetNthSegment(number).GetName() for number in range(2)]
    assert names == ["ellipsoid", "Ellipsoid"]
    for number in range(2):
        colour = drawn.GetNthSegment(number).GetColor()
        assert np.allclose(found.GetNthSegment(number).GetColor(), colour, atol=2e-3)
    doubt = slicer.util.arrayFromVolume(slicer.util.getNode("Phantom uncertainty"))
    assert doubt.shape == truth.shape and 0 <= doubt.min() < doubt.max() <= 1

    second = logic.fineTune(volume, labels, steps=1, startFrom=first, name="second")
    assert [label.value for label in second.card.labels] == [1, 2]
    labels.GetSegmentation().GetSegment(other).SetName("other")
    with pytest.raises(ValueError, match="does not find other; it finds ellipsoid, Ellipsoid"):
        logic.fineTune(volume, labels, steps=1, startFrom="first")
    for each in (first, second):
        logic.deleteModel(each)


def test_an_import_that_ends_early_leaves_nothing_behind(
    model_of_this_process, logic, phantom, process_events
):
    import slicer

    volume, labels, _ = phantom
    other = np.zeros((3, 4, 5), np.int16)
    for disturb, state in (
        (lambda job: job.cancel(), "cancelled"),
        (lambda job: slicer.util.updateVolumeFromArray(volume, other), "failed"),
    ):
        job = logic.apply(model_of_this_process, volume, uncertainty=True, blocking=False)
        job.addListener(
            lambda job, event, disturb=disturb: disturb(job) if job.state == "importing" else None
        )
        process_events(lambda job=job: job.isFinished)
        assert job.state == state
        assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == [labels]
        assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [volume]


@pytest.mark.parametrize("end", ["cancel", "endForClosing"])
def test_a_result_that_is_in_the_scene_stays_while_files_are_deleted(
    model_of_this_process, logic, phantom, process_events, end
):
    from SAMFineTuneLib.jobs.folder import JobFolder

    volume, _labels, _ = phantom
    job = logic.apply(model_of_this_process, volume, blocking=False)
    removed = JobFolder.remove_in_parts

    def ended_meanwhile(folder):
        getattr(job, end)()
        return removed(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobFolder, "remove_in_parts", ended_meanwhile)
        process_events(lambda: job.isFinished)
    (result,) = job.result
    assert job.state == "done" and result.GetSegmentation().GetNumberOfSegments() == 1
    assert not job.folder.exists()
