"""The section of the model: what is offered, what it says, and fetching weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from Testing.support.model_files import write_model

HARDWARE = {
    "processors": 8,
    "memory_bytes": 32_000_000_000,
    "devices": [
        {"name": "cuda:0", "description": "NVIDIA RTX 4000", "memory_bytes": 20_000_000_000},
        {"name": "cpu", "description": "8 processors", "memory_bytes": 32_000_000_000},
    ],
    "preset": "study",
    "why": "a GPU with 20 GB of memory was found",
}


class StubJob:
    """A download of weights that a test leads."""

    def __init__(self) -> None:
        self.kind, self.title, self.phase = "checkpoint", "Fetch weights", "download"
        self.state, self.step, self.steps, self.etaSeconds = "running", 0, None, 12.0
        self.log, self.warnings, self.errorMessage, self.result = [], [], "", None
        self.isCancelling = self.isFinishing = False
        self.listeners = []

    @property
    def isFinished(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def start(self) -> None:
        pass

    def addListener(self, listener) -> None:
        self.listeners.append(listener)

    def removeListener(self, listener) -> None:
        self.listeners.remove(listener)

    def cancel(self) -> None:
        self.tell("state", state="cancelled")

    def tell(self, event: str, **changes) -> None:
        vars(self).update(changes)
        for listener in self.listeners:
            listener(self, event)


@pytest.fixture
def section(bundle, panel, monkeypatch):

    monkeypatch.setattr(panel.logic._state.hardware, "found", None)
    monkeypatch.setattr(panel.logic, "probeHardware", lambda callback: None)
    panel.panel.updateSoon()
    yield panel.panel.model
    monkeypatch.undo()


@pytest.fixture
def weights(slicer_app) -> Path:
    file = Path(os.environ["SAMFINETUNE_CACHE"]) / "checkpoints" / "mobile_sam.pt"
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture
def fetching(section, weights, monkeypatch):
    """MobileSAM is chosen, and "Get the weights" starts a stub."""
    from SAMFineTunePanel.module_state import theModuleState

    started = []

    def startWeights(backbone):
        started.append(backbone)
        return theModuleState().start(StubJob)

    monkeypatch.setattr(section.logic, "startWeights", startWeights)
    choose(section.ui.backboneComboBox, "vit_t")
    section.update()
    section.ui.getWeightsButton.click()
    assert started == ["vit_t"]
    yield section.logic.job
    theModuleState().job = None


@pytest.fixture
def start(panel, monkeypatch):
    """The button, with nothing amiss but perhaps the weights."""
    monkeypatch.setattr(panel.logic, "problemWithFineTune", lambda: "")
    return panel.panel.fineTune.ui.startButton


@pytest.fixture
def model(slicer_app):
    file = write_model(Path(os.environ["SAMFINETUNE_MODELS"]) / "first.safetensors")
    yield file.stem
    file.unlink()


def look_at_files(panel) -> None:
    panel.panel._updateFromFilesSoon()
    panel.panel._update()


def asked(panel) -> dict:
    """What job.json would say."""
    return panel.logic._finetuneRequest().settings


def choose(combo_box, value) -> None:
    combo_box.currentIndex = combo_box.findData(value)


def test_the_preset_is_chosen_by_the_hardware_found(section, process_events, monkeypatch):

    section.update()
    assert section.ui.presetComboBox.currentText == "Suited to this computer"
    assert "Looking" in section.ui.presetTextLabel.text
    monkeypatch.setattr(section.logic._state.hardware, "hasFailed", True)
    section._onHardware(None)
    assert "PyTorch does not load" in section.ui.presetTextLabel.text
    monkeypatch.setattr(section.logic._state.hardware, "found", HARDWARE)
    section._onHardware(HARDWARE)
    assert section.ui.presetComboBox.currentText == "Suited to this computer (study)"
    words = section.ui.presetTextLabel.text
    assert words.startswith("A GPU with 20 GB") and "Costs" in words and "Needs" in words
    devices = [section.ui.deviceComboBox.itemText(index) for index in range(3)]
    assert devices == ["automatic", "NVIDIA RTX 4000, 20.0 GB", "8 processors, 32.0 GB"]


@pytest.mark.parametrize("preset", ["laptop", "thorough", "study", "full"])
def test_each_preset_says_what_it_costs_and_needs(section, preset, process_events):
    choose(section.ui.presetComboBox, preset)
    assert section.parameterNode.preset == preset
    process_events(lambda: section.ui.presetTextLabel.text.startswith("Costs"))
    assert "Needs" in section.ui.presetTextLabel.text


def test_choices_reach_the_parameter_node_and_come_back(section, process_events):
    ui, node = section.ui, section.parameterNode
    ui.advancedGroupBox.collapsed = False
    for combo_box, name, value in (
        (ui.methodComboBox, "method", "lora"),
        (ui.scopeComboBox, "scope", "decoder"),
        (ui.inputSizeComboBox, "inputSize", 512),
        (ui.deviceComboBox, "device", "cpu"),
    ):
        choose(combo_box, value)
        assert getattr(node, name) == value
    for spinBox, name, value in (
        (ui.stepsSpinBox, "steps", 120),
        (ui.minutesSpinBox, "minutes", 2.5),
        (ui.seedSpinBox, "seed", 7),
        (ui.rankSpinBox, "rank", 8),
    ):
        spinBox.value = value
        assert getattr(node, name) == value
    node.method, node.steps, node.inputSize, node.minutes = "adapter", 0, 0, 0.0
    process_events(
        lambda: ui.methodComboBox.currentText == "Adapter" and ui.stepsSpinBox.text == "by preset"
    )
    assert ui.inputSizeComboBox.currentText == "automatic" and ui.minutesSpinBox.text == "by preset"
    ui.advancedGroupBox.collapsed = True


def test_the_rank_is_for_lora_alone(section, process_events):
    section.update()
    assert not section.ui.rankSpinBox.enabled and "LoRA" in section.ui.rankSpinBox.toolTip
    choose(section.ui.methodComboBox, "lora")
    process_events(lambda: section.ui.rankSpinBox.enabled)


def test_places_and_depth_count_only_where_they_have_an_effect(section, panel, process_events):
    ui, node = section.ui, section.parameterNode
    section.update()
    assert not ui.adapterBlocksComboBox.enabled and "Adapter" in ui.adapterBlocksComboBox.toolTip
    assert not ui.loraPartsComboBox.enabled and not ui.headDepthComboBox.enabled
    choose(ui.methodComboBox, "lora")
    choose(ui.loraPartsComboBox, "q,k,v,o,mlp")
    choose(ui.loraBlocksComboBox, "first2last2")
    choose(ui.headComboBox, "convnet")
    process_events(lambda: ui.loraPartsComboBox.enabled and ui.headDepthComboBox.enabled)
    choose(ui.headDepthComboBox, 3)
    wanted = {
        "lora_parts": ["q", "k", "v", "o", "mlp"],
        "lora_blocks": "first2last2",
        "head": "convnet",
        "head_depth": 3,
    }
    assert wanted.items() <= asked(panel).items()
    # Without the encoder there are no blocks; a head without a depth has none; Adapter has no rank.
    node.scope, node.head = "decoder", "linear"
    assert (
        not {"lora_blocks", "head_depth"} & set(asked(panel)) and asked(panel)["head"] == "linear"
    )
    node.scope, node.method, node.adapterBlocks = "auto", "adapter", "all"
    assert asked(panel)["adapter_blocks"] == "all" and "prompt_mode" not in asked(panel)
    node.promptMode = "box"
    assert asked(panel)["prompt_mode"] == "box"
    node.tuneForPrompts = False
    assert "prompt_mode" not in asked(panel)
    assert not {"rank", "lora_parts"} & set(asked(panel))
    process_events(lambda: ui.adapterBlocksComboBox.enabled and not ui.loraPartsComboBox.enabled)


def test_a_device_of_another_computer_stays_chosen(section, process_events):
    section.parameterNode.device = "cuda:3"
    process_events(lambda: section.ui.deviceComboBox.currentText == "cuda:3")
    assert section.parameterNode.device == "cuda:3"


def test_the_starters_weights_come_with_the_extension(section):
    section.update()
    words = "come with the extension, trained on synthetic images only (licence Apache-2.0)"
    assert section.ui.weightsLabel.text == words
    assert not section.ui.getWeightsButton.visible and not section.ui.weightsProgressBar.visible


def test_weights_show_size_and_licence_and_can_be_fetched(section, weights, panel):
    choose(section.ui.backboneComboBox, "vit_b")
    section.update()
    assert section.ui.weightsLabel.text == "not on this computer (375 MB, licence Apache-2.0)"
    assert section.ui.getWeightsButton.visible and "375 MB" in section.ui.getWeightsButton.text
    weights.parent.mkdir(parents=True, exist_ok=True)
    part = weights.with_name(weights.name + ".part")
    part.write_bytes(b"0" * 10_000_000)
    choose(section.ui.backboneComboBox, "vit_t")
    look_at_files(panel)
    assert "10 MB of 41 MB" in section.ui.weightsLabel.text
    part.unlink()
    with weights.open("wb") as file:
        file.truncate(40728226)
    look_at_files(panel)
    assert section.ui.weightsLabel.text == "on this computer (41 MB, licence Apache-2.0)"
    assert not section.ui.getWeightsButton.visible


def test_fetching_shows_progress_and_can_be_cancelled(section, fetching, panel):
    fetching.tell("progress", step=12, steps=41)
    ui = section.ui
    assert ui.weightsStatusLabel.text == "12 of 41 MB, about 10 s left"
    assert ui.weightsProgressBar.visible and (
        ui.weightsProgressBar.value,
        ui.weightsProgressBar.maximum,
    ) == (12, 41)
    assert not ui.getWeightsButton.visible
    start = panel.panel.fineTune.ui.startButton
    assert not start.enabled and "Fetch weights is at work" in start.toolTip
    assert ui.cancelWeightsButton.enabled
    fetching.tell("state", isCancelling=True)
    assert ui.weightsStatusLabel.text == "Cancelling…" and not ui.cancelWeightsButton.enabled
    assert ui.cancelWeightsButton.toolTip == "It is being cancelled already"
    fetching.tell("state", isCancelling=False)
    ui.cancelWeightsButton.click()
    assert ui.weightsStatusLabel.text == "Cancelled." and not ui.weightsProgressBar.visible
    assert not ui.cancelWeightsButton.visible and ui.getWeightsButton.enabled


def test_a_download_that_fails_is_told_in_the_panel(section, fetching):
    fetching.tell(
        "state",
        state="failed",
        errorMessage="could not download (no connection). Check the network",
    )
    assert (
        section.ui.weightsErrorLabel.visible
        and "Check the network" in section.ui.weightsErrorLabel.text
    )


def test_a_file_of_ones_own_takes_the_place_of_the_download(section, tmp_path, panel):
    section.ui.advancedGroupBox.collapsed = False
    choose(section.ui.backboneComboBox, "vit_b")
    section.ui.checkpointPathEdit.currentPath = str(tmp_path / "medsam.pth")
    section.update()
    assert section.parameterNode.checkpoint == str(tmp_path / "medsam.pth")
    section.parameterNode.weightsKind = "medsam"
    section.update()
    assert section.ui.weightsKindComboBox.currentData == "medsam"
    assert asked(panel)["weights_kind"] == "medsam"
    section.parameterNode.randomWeights = True
    section.update()
    assert not section.ui.weightsKindComboBox.enabled and "weights_kind" not in asked(panel)
    section.parameterNode.randomWeights = False
    section.parameterNode.weightsKind = ""
    section.update()
    assert (
        section.ui.weightsLabel.text == "your file medsam.pth"
        and not section.ui.getWeightsButton.visible
    )
    assert "no such file" in section.ui.checkpointProblemLabel.text
    (tmp_path / "medsam.pth").write_bytes(b"weights")
    section.update()
    assert not section.ui.checkpointProblemLabel.visible
    section.ui.advancedGroupBox.collapsed = True


def test_a_file_of_ones_own_can_be_taken_away_again(section, tmp_path, panel):
    ui, file = section.ui, tmp_path / "medsam.pth"
    file.write_bytes(b"weights")
    ui.advancedGroupBox.collapsed = False
    ui.checkpointPathEdit.currentPath = str(file)
    assert asked(panel)["checkpoint"] == str(file)
    ui.checkpointPathEdit.currentPath = ""
    section.update()
    assert section.parameterNode.checkpoint == "" and "checkpoint" not in asked(panel)
    assert ui.checkpointPathEdit.currentPath == "" and "medsam" not in ui.weightsLabel.text
    # What the scene says is shown without being taken for a choice.
    section.parameterNode.checkpoint = str(file)
    section.update()
    assert ui.checkpointPathEdit.currentPath == section.parameterNode.checkpoint == str(file)
    section.parameterNode.checkpoint = ""
    section.update()
    assert ui.checkpointPathEdit.currentPath == ""
    ui.advancedGroupBox.collapsed = True


def test_a_fine_tune_waits_for_the_weights(section, weights, start, process_events):
    choose(section.ui.backboneComboBox, "vit_b")
    process_events(lambda: "get them in section Model" in start.toolTip)
    assert not start.enabled
    choose(section.ui.backboneComboBox, "starter")
    process_events(lambda: start.enabled)


def test_a_starter_without_its_weights_says_what_to_do(
    section, bundle, start, panel, process_events
):
    bundle.unlink()
    look_at_files(panel)
    assert not start.enabled and start.toolTip == (
        "The starter weights, which come with the extension, are missing: install the extension "
        "anew, or tick Random weights in section Model"
    )
    assert section.ui.weightsLabel.text == (
        "missing: install the extension anew, or tick Random weights under Advanced"
    )
    assert not section.ui.getWeightsButton.visible
    section.ui.randomWeightsCheckBox.click()
    process_events(lambda: start.enabled)
    assert section.ui.weightsLabel.text == "random: the network begins with nothing learnt"
    section.ui.randomWeightsCheckBox.click()
    process_events(lambda: not start.enabled)
    bundle.touch()
    look_at_files(panel)
    assert start.enabled


def test_random_weights_reach_the_job_and_come_back(section, panel, process_events):
    box, node = section.ui.randomWeightsCheckBox, section.parameterNode
    assert not box.checked and "weights" not in asked(panel)
    box.click()
    assert node.randomWeights and asked(panel)["weights"] == "random"
    node.randomWeights = False
    process_events(lambda: not box.checked)
    assert "weights" not in asked(panel)


def test_random_weights_need_nothing_fetched_and_no_file(
    section, weights, start, panel, process_events
):
    ui, own = section.ui, "/nowhere/medsam.pth"
    ui.advancedGroupBox.collapsed = False
    choose(ui.backboneComboBox, "vit_b")
    process_events(lambda: ui.getWeightsButton.visible and not start.enabled)
    ui.randomWeightsCheckBox.click()
    process_events(lambda: not ui.getWeightsButton.visible and start.enabled)
    assert not ui.checkpointPathEdit.enabled and "no file" in ui.checkpointPathEdit.toolTip
    # As a scene may have it: a file of before stays named, and is not used.
    section.parameterNode.checkpoint = own
    process_events(lambda: ui.checkpointPathEdit.currentPath == own)
    assert ui.weightsLabel.text.startswith("random") and not ui.checkpointProblemLabel.visible
    assert asked(panel)["weights"] == "random" and "checkpoint" not in asked(panel)
    ui.randomWeightsCheckBox.click()
    process_events(lambda: ui.checkpointPathEdit.enabled)
    assert asked(panel)["checkpoint"] == own and "weights" not in asked(panel)
    assert ui.weightsLabel.text == "your file medsam.pth" and ui.checkpointProblemLabel.visible
    ui.advancedGroupBox.collapsed = True


def test_a_tuned_model_to_start_from_excludes_random_weights(
    section, bundle, model, start, panel, process_events
):
    ui, box = section.ui, section.ui.randomWeightsCheckBox
    bundle.unlink()
    look_at_files(panel)
    box.click()
    choose(ui.startFromComboBox, model)
    process_events(lambda: not box.enabled)
    assert box.toolTip == "The tuned model to start from has learnt already"
    assert "weights" not in asked(panel) and ui.checkpointPathEdit.enabled
    assert start.enabled and not ui.weightsLabel.text.startswith("random")
    choose(ui.startFromComboBox, "")
    process_events(lambda: box.enabled)
    assert "nothing" in box.toolTip and asked(panel)["weights"] == "random"
