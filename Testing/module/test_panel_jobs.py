"""Fine-tune and apply from the panel: started, watched and stopped by clicks.

A pretended worker does the jobs; what the real one learns is watched in test_walkthrough.py, and
how it is cancelled in test_responsiveness.py.
"""

from __future__ import annotations

import psutil
import pytest

from Testing.host import dialogs
from Testing.support.time_limits import within

# Far more than a test waits for.
ENDLESS = 100_000


@pytest.fixture
def phantom(panel, layout_manager, process_events):
    """A volume with five labelled slices, added to the table by the button."""
    import slicer
    from SAMFineTunePanel.module_test import labelSlices, makeVolume

    layout_manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    volume, truth = makeVolume()
    labelSlices(volume, truth)
    # So that none of this hangs on the weights that come with the extension.
    panel.logic.getParameterNode().randomWeights = True
    process_events(lambda: panel.panel.examples.ui.addButton.enabled)
    panel.panel.examples.ui.addButton.click()
    process_events(lambda: panel.panel.fineTune.ui.startButton.enabled)
    yield volume
    job = panel.logic.job
    if job is not None and not job.isFinished:
        job.cancel()
        job.endForClosing()
        process_events(lambda: job.isFinished)
    for interrupted in panel.logic.interruptedFineTunes():
        panel.logic.discard(interrupted)


@pytest.fixture
def fine_tune(panel, phantom):
    return panel.panel.fineTune.ui


@pytest.fixture
def endless(pretended_worker, panel, fine_tune, process_events):
    """A fine-tune that goes on."""
    panel.panel.model.ui.stepsSpinBox.value = ENDLESS
    fine_tune.startButton.click()
    process_events(lambda: panel.logic.job.step > 2)
    return panel.logic.job


def forget_models(panel) -> None:
    """Deletes what other tests have left, and looks at the disk again."""
    for each in panel.logic.models():
        panel.logic.deleteModel(each)
    panel.exit()
    panel.enter()


def kill_after_checkpoint(job, process_events) -> None:
    from SAMFineTuneLib.jobs.folder import JobFolder

    process_events(JobFolder(job.folder).has_checkpoint)
    worker = psutil.Process(job.processID)
    for process in (*worker.children(recursive=True), worker):
        process.kill()


def test_fine_tune_watch_apply_undo(
    pretended_worker, panel, phantom, fine_tune, process_events, monkeypatch
):
    import slicer

    charts = []
    monkeypatch.setattr(
        slicer.modules.plots.logic(), "ShowChartInLayout", charts.append, raising=False
    )
    panel.panel.model.ui.stepsSpinBox.value = 30
    fine_tune.modelNameEdit.text = "ball"
    fine_tune.startButton.click()
    assert not fine_tune.startButton.enabled and "is at work" in fine_tune.startButton.toolTip
    assert (
        "Nothing has been learnt yet" in fine_tune.finishButton.toolTip
        and fine_tune.cancelButton.enabled
    )
    process_events(lambda: panel.logic.job.step > 5)
    assert fine_tune.progressBar.visible and fine_tune.progressBar.maximum == 30
    assert fine_tune.statusLabel.text.startswith("Step ") and "of 30" in fine_tune.statusLabel.text
    assert "loss" in fine_tune.scoreLabel.text and fine_tune.finishButton.enabled
    fine_tune.chartButton.click()
    process_events(lambda: panel.logic.job.isFinished)
    assert "ball" in fine_tune.statusLabel.text and not fine_tune.progressBar.visible
    assert not fine_tune.previewLabel.pixmap.isNull() and "labelled" in fine_tune.logEdit.plainText
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert max(each.GetNumberOfRows() for each in tables) == len(panel.logic.job.losses)

    apply = panel.panel.apply.ui
    process_events(lambda: apply.applyButton.enabled)
    assert apply.modelComboBox.currentText.startswith("ball") and not apply.undoButton.enabled
    before = len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    apply.uncertaintyCheckBox.click()
    apply.applyButton.click()
    assert "is at work" in fine_tune.startButton.toolTip and apply.cancelButton.enabled
    process_events(lambda: panel.logic.job.isFinished)
    assert apply.statusLabel.text.startswith("Done") and dialogs.shown == []
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == before + 1
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2
    process_events(lambda: apply.undoButton.enabled)
    apply.undoButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == before
    assert not apply.undoButton.enabled
    assert apply.statusLabel.text == "Taken back."


def test_a_finished_model_goes_on_learning(
    pretended_worker, panel, phantom, fine_tune, process_events
):
    from SAMFineTuneLib.jobs.schema import read_job

    forget_models(panel)
    button = fine_tune.goOnButton
    process_events(lambda: "Fine-tune a model first" in button.toolTip)
    assert not button.enabled and fine_tune.goOnLabel.text == ""
    model = panel.panel.model.ui
    model.stepsSpinBox.value, model.minutesSpinBox.value = 20, 3
    fine_tune.modelNameEdit.text = "globe"
    fine_tune.startButton.click()
    process_events(lambda: panel.logic.job.step > 0)
    assert not button.enabled and "is at work" in button.toolTip
    process_events(lambda: panel.logic.job.isFinished)
    assert fine_tune.statusLabel.text == (
        "Done: tuned model “globe”. Apply it below. It had time for 10 of 20 steps; about 6 more "
        "minutes would make the rest. Go on learning to use them."
    )
    process_events(lambda: button.enabled)
    assert "“globe”" in button.toolTip and fine_tune.goOnLabel.text == "globe"
    assert "replace it when that is done" in button.toolTip
    before = {each.name: each.path.read_bytes() for each in panel.logic.models()}

    # Cancelled, it leaves the model as it was.
    button.click()
    job = panel.logic.job
    process_events(lambda: job.step > 2)
    asked = read_job(job.folder)
    assert asked.go_on and asked.output == asked.initial_model and asked.output.stem == "globe"
    # How long is the program's choice, and how, the model's.
    assert (asked.steps, asked.minutes, asked.method, asked.weights) == (
        None,
        None,
        "auto",
        "pretrained",
    )
    assert asked.preset == "laptop" and asked.prompts is False
    fine_tune.cancelButton.click()
    process_events(lambda: job.isFinished)
    assert before == {each.name: each.path.read_bytes() for each in panel.logic.models()}

    # Finished, it replaces it.
    process_events(lambda: button.enabled)
    button.click()
    job = panel.logic.job
    process_events(lambda: fine_tune.finishButton.enabled)
    assert before == {each.name: each.path.read_bytes() for each in panel.logic.models()}
    fine_tune.finishButton.click()
    process_events(lambda: job.isFinished)
    assert job.result.name == "globe" and [each.name for each in panel.logic.models()] == [*before]
    assert job.result.card.training["earlier_steps"] == 10
    assert fine_tune.statusLabel.text == "Done: tuned model “globe”. Apply it below."

    # Another set of structures, or none, is not what it learnt from.
    process_events(lambda: button.enabled)
    import slicer

    (labels,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    labels.GetSegmentation().GetNthSegment(0).SetName("tower")
    panel.panel.updateSoon()
    process_events(lambda: not button.enabled)
    assert "The examples of “globe” are not in the list" in button.toolTip
    assert "does not find tower" in button.toolTip
    panel.panel.examples.ui.removeButton.click()
    process_events(lambda: "Add an example first" in button.toolTip)
    assert not button.enabled
    forget_models(panel)
    process_events(lambda: "Fine-tune a model first" in button.toolTip)


def test_a_model_that_is_chosen_goes_on_and_is_resumed(
    pretended_worker, panel, phantom, fine_tune, process_events
):
    from pathlib import Path

    from SAMFineTuneLib.models.library import models_folder
    from Testing.support.model_files import write_model

    forget_models(panel)
    path = models_folder() / "older.safetensors"
    for name in ("another", "older"):
        training = {"steps": 50, "planned_steps": 400}
        write_model(path.with_stem(name), ["ellipsoid"], training=training)
    panel.exit()
    panel.enter()
    panel.logic.getParameterNode().applyModel = "older"
    process_events(lambda: fine_tune.goOnLabel.text == "older")
    assert fine_tune.goOnButton.enabled
    fine_tune.goOnButton.click()
    job = panel.logic.job
    kill_after_checkpoint(job, process_events)
    process_events(lambda: fine_tune.resumeFrame.visible)
    before = path.read_bytes()
    fine_tune.resumeButton.click()
    again = panel.logic.job
    process_events(lambda: again.isFinished)
    # It replaces its model, and takes no other name because that one is there.
    assert Path(again.result.path) == path and path.read_bytes() != before
    assert {each.name for each in panel.logic.models()} == {"another", "older"}
    forget_models(panel)


def test_scripts_go_on_too(pretended_worker, panel, phantom, process_events):
    import slicer

    logic = panel.logic
    (labels,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    first = logic.fineTune(phantom, labels, steps=4, name="scripted", weights="random")
    second = logic.fineTune(phantom, labels, steps=2, startFrom=first, goOn=True)
    assert second.path == first.path and second.card.training["earlier_steps"] == 4
    with pytest.raises(ValueError, match="startFrom"):
        logic.fineTune(phantom, labels, steps=2, goOn=True)
    logic.deleteModel(second)
    assert "Fine-tune a model first" in logic.problemWithGoingOn(None)


def test_whether_slices_decide_together_is_a_box(panel, phantom):
    box, logic = panel.panel.apply.ui.tidyCheckBox, panel.logic
    assert box.checked and logic._applyRequest().tidy
    box.click()
    assert not logic.getParameterNode().tidy and not logic._applyRequest().tidy


def test_cancel_keeps_nothing(panel, endless, fine_tune, process_events):
    before = len(panel.logic.models())
    with within(5, "cancelling"):
        fine_tune.cancelButton.click()
        for button in (fine_tune.cancelButton, fine_tune.finishButton):
            assert not button.enabled and button.toolTip == "It is being cancelled already"
        assert fine_tune.statusLabel.text == "Cancelling…"
        process_events(lambda: endless.isFinished)
    assert fine_tune.statusLabel.text == "Cancelled."
    assert len(panel.logic.models()) == before and not fine_tune.resumeFrame.visible
    assert fine_tune.startButton.enabled and not fine_tune.cancelButton.enabled


def test_finish_now_keeps_the_best(panel, endless, fine_tune, process_events):
    before = len(panel.logic.models())
    process_events(lambda: fine_tune.finishButton.enabled)
    fine_tune.finishButton.click()
    seen = []
    endless.addListener(
        lambda job, event: seen.append((fine_tune.finishButton.enabled, fine_tune.statusLabel.text))
    )
    assert not fine_tune.finishButton.enabled and endless.isFinishing
    assert fine_tune.finishButton.toolTip == "It is ending; the best model is being kept"
    assert fine_tune.statusLabel.text == "Ending; the best model is being kept…"
    assert fine_tune.cancelButton.enabled
    process_events(lambda: endless.isFinished)
    # Progress, previews and other jobs' changes leave it as it is until the end.
    assert len(seen) > 1 and not any(enabled for enabled, _ in seen)
    assert not any(words.startswith("Step") for _, words in seen)
    assert not endless.isFinishing
    assert endless.state == "done" and len(panel.logic.models()) == before + 1


def test_a_killed_worker_is_told_and_resumed_from_the_panel(
    panel, endless, fine_tune, process_events
):
    kill_after_checkpoint(endless, process_events)
    with within(10, "seeing that a worker was killed"):
        process_events(lambda: endless.isFinished)
    assert endless.state == "failed" and fine_tune.errorLabel.visible and dialogs.shown == []
    with within(5, "offering to go on"):
        process_events(lambda: fine_tune.resumeFrame.visible)
    assert (
        "ellipsoid" in fine_tune.resumeLabel.text
        or "interrupted at step" in fine_tune.resumeLabel.text
    )
    fine_tune.resumeButton.click()
    again = panel.logic.job
    assert again is not endless and not fine_tune.resumeFrame.visible
    process_events(lambda: again.step > 0)
    assert endless.errorMessage not in fine_tune.errorLabel.text
    with within(10, "cancelling"):
        fine_tune.cancelButton.click()
        process_events(lambda: again.isFinished)


def test_an_interrupted_fine_tune_can_be_discarded(panel, endless, fine_tune, process_events):
    kill_after_checkpoint(endless, process_events)
    process_events(lambda: fine_tune.resumeFrame.visible)
    fine_tune.discardButton.click()
    process_events(lambda: not fine_tune.resumeFrame.visible)
    assert panel.logic.interruptedFineTunes() == []


def test_a_failure_is_told_in_the_panel_and_the_log(
    pretended_worker, panel, phantom, fine_tune, process_events, tmp_path
):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    node = panel.logic.getParameterNode()
    node.backbone, node.checkpoint, node.randomWeights = "vit_t", str(broken), False
    fine_tune.startButton.click()
    process_events(lambda: panel.logic.job is not None and panel.logic.job.isFinished)
    assert fine_tune.errorLabel.visible and "broken.pth" in fine_tune.errorLabel.text
    assert "broken.pth" in fine_tune.logEdit.plainText and dialogs.shown == []


def test_a_setting_that_does_not_fit_is_told_before_anything_starts(panel, phantom, fine_tune):
    panel.logic.getParameterNode().device = "abacus"
    job = panel.logic.job
    fine_tune.startButton.click()
    assert (
        panel.logic.job is job
        and "abacus" in fine_tune.errorLabel.text
        and fine_tune.errorLabel.visible
    )


def test_a_job_of_the_console_is_followed_too(
    pretended_worker, panel, phantom, fine_tune, process_events
):
    import slicer

    labels = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    job = panel.logic.fineTune(
        phantom, labels, steps=ENDLESS, minutes=30, weights="random", blocking=False
    )
    process_events(lambda: job.step > 0)
    assert fine_tune.statusLabel.text.startswith("Step") and not fine_tune.startButton.enabled
    with within(10, "cancelling"):
        fine_tune.cancelButton.click()
        process_events(lambda: job.isFinished)


def test_a_fine_tune_goes_on_in_the_next_scene(panel, endless, fine_tune, scene, process_events):
    import slicer

    panel.panel.fineTune.ui.chartButton.click()
    scene.Clear(0)
    process_events(lambda: panel.panel.examples.ui.hintLabel.visible)
    assert not endless.isFinished and "is at work" in fine_tune.startButton.toolTip
    step = endless.step
    process_events(lambda: endless.step > step)
    assert fine_tune.statusLabel.text.startswith("Step ") and fine_tune.progressBar.visible
    assert "loss" in fine_tune.scoreLabel.text
    # Nothing is put into the new scene unless it is asked for.
    assert slicer.util.getNodesByClass("vtkMRMLPlotChartNode") == []
    fine_tune.chartButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 1
    process_events(lambda: fine_tune.finishButton.enabled)
    fine_tune.finishButton.click()
    process_events(lambda: endless.isFinished)
    name = endless.result.name
    assert endless.state == "done" and name in fine_tune.statusLabel.text
    assert panel.logic.getParameterNode().applyModel == name
    process_events(lambda: panel.panel.apply.ui.modelComboBox.currentText.startswith(name))
    assert "Add an example" in fine_tune.startButton.toolTip
    panel.logic.deleteModel(endless.result)


def test_another_module_does_not_stop_the_job(panel, endless, fine_tune, process_events):
    import slicer

    fine_tune.chartButton.click()
    panel.exit()
    step = endless.step
    process_events(lambda: endless.step > step)
    # The chart, which is seen from there too, goes on.
    table = slicer.util.getNode("SAMFineTune loss")
    rows = table.GetNumberOfRows()
    process_events(lambda: table.GetNumberOfRows() > rows)
    panel.enter()
    process_events(lambda: fine_tune.cancelButton.enabled)
    fine_tune.chartButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 1
    assert str(endless.steps) in fine_tune.statusLabel.text


def test_warnings_stay_in_view_after_the_end(panel, endless, fine_tune, process_events):
    from SAMFineTuneLib.worker.events import Log

    def warn(number: int) -> None:
        endless._take(Log(level="warning", message=f"fault {number} of the image"))

    # The phantom's fine-tunes begin at random, of which there is a warning already.
    before = fine_tune.errorLabel.text
    assert before.startswith("⚠ ") and "random weights" in before and "\n" not in before
    endless._take(Log(message="nothing to worry about"))
    assert fine_tune.errorLabel.text == before
    for number in (2, 3, 2):
        warn(number)
    assert fine_tune.errorLabel.text == f"{before}\n⚠ fault 2 of the image\n⚠ fault 3 of the image"
    for number in range(4, 8):
        warn(number)
    process_events(lambda: fine_tune.finishButton.enabled)
    fine_tune.finishButton.click()
    process_events(lambda: endless.isFinished)
    assert endless.state == "done" and fine_tune.statusLabel.text.startswith("Done")
    lines = fine_tune.errorLabel.text.splitlines()
    assert fine_tune.errorLabel.visible and lines[4] == "⚠ fault 5 of the image"
    assert lines[5] == "⚠ 2 more warnings are in the log."
    assert "warning: fault 7 of the image" in fine_tune.logEdit.plainText
    # Those of the last job are gone with the next one.
    fine_tune.startButton.click()
    assert panel.logic.job is not endless and not fine_tune.errorLabel.visible
    with within(10, "cancelling"):
        fine_tune.cancelButton.click()
        process_events(lambda: panel.logic.job.isFinished)
    panel.logic.deleteModel(endless.result)


def test_an_apply_is_cancelled_once_and_shows_its_warnings(panel, phantom, process_events):
    from pathlib import Path

    from SAMFineTunePanel.jobs.job import RUNNING, Job

    from SAMFineTuneLib.worker.events import Log

    class Worker:
        cancelled = 0

        def cancel(self) -> None:
            self.cancelled += 1

    job = Job("apply", "Apply ball", Path("no such folder"), (), lambda result: iter(()))
    worker = Worker()
    job.state, job._process = RUNNING, worker
    apply = panel.panel.apply
    apply.showJob(job)
    job._take(Log(level="warning", message="CT.nii: sform and qform disagree"))
    assert apply.ui.errorLabel.visible
    assert apply.ui.errorLabel.text == "⚠ CT.nii: sform and qform disagree"
    assert apply.ui.cancelButton.enabled
    apply.ui.cancelButton.click()
    apply.onCancel()
    panel.panel.updateSoon()
    process_events(lambda: not apply.ui.cancelButton.enabled)
    assert apply.ui.cancelButton.toolTip == "It is being cancelled already"
    assert apply.ui.statusLabel.text == "Cancelling…" and worker.cancelled == 1
    job._end("cancelled")
    assert "Nothing is being applied" in apply.ui.cancelButton.toolTip
    assert apply.ui.statusLabel.text == "Cancelled."
