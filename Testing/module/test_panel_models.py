"""The list of tuned models: rename, delete, export, import; storage; where else they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit

from Testing.host import dialogs
from Testing.support.model_files import write_model


@pytest.fixture
def folder(slicer_app) -> Path:
    folder = Path(os.environ["SAMFINETUNE_MODELS"])
    for file in folder.glob("*"):
        file.unlink()
    return folder


@pytest.fixture
def section(folder, panel):
    write_model(folder / "kidney.safetensors", ("left", "right"), None, "2026-01-02T10:00:00+00:00")
    write_model(folder / "liver.safetensors")
    panel.exit()
    panel.enter()
    section = panel.panel.models
    section.ui.collapsibleButton.collapsed = False
    section.ui.modelsTable.clearSelection()
    yield section
    section.ui.collapsibleButton.collapsed = True


def names(section) -> list[str]:
    table = section.ui.modelsTable
    return [table.item(row, 0).text() for row in range(table.rowCount)]


def select(section, name: str) -> None:
    section.ui.modelsTable.selectRow(names(section).index(name))


def offered(combo_box) -> list[str]:
    return [combo_box.itemText(index) for index in range(combo_box.count)]


def test_models_are_listed_with_their_cards(section):
    table = section.ui.modelsTable
    rows = [[table.item(row, column).text() for column in range(5)] for row in range(2)]
    assert rows == [
        ["kidney", "2026-01-02", "starter", "left, right", "-"],
        ["liver", "2026-03-04", "starter", "liver", "0.912"],
    ]
    select(section, "liver")
    card = section.ui.cardLabel.text
    assert (
        "starter (vanilla), axial slices: 9 labelled, of 2 volumes" in card
        and "DSC 0.912 on 2 held-out slices." in card
    )


@pytest.mark.parametrize(
    ("training", "dsc", "words"),
    [
        ({"ending": "complete", "steps": 300, "planned_steps": 320}, 0.9, ""),
        ({"ending": "complete", "steps": 300}, 0.9, ""),
        (
            {"ending": "time limit", "steps": 16, "planned_steps": 320},
            0.9,
            "Its time ended before it was done. "
            "Only 16 of 320 planned steps were made in the time.",
        ),
        (
            {"ending": "time limit", "steps": 1, "planned_steps": 320},
            0.9,
            "Its time ended before it was done. Only 1 of 320 planned steps was made in the time.",
        ),
        (
            {"ending": "time limit", "steps": 200, "planned_steps": 320},
            0.9,
            "Its time ended before it was done.",
        ),
        (
            {"ending": "finished on request", "steps": 9, "planned_steps": 320},
            0.9,
            "It was ended early, as asked. Only 9 of 320 planned steps were made.",
        ),
        (
            {"ending": "early stop", "steps": 90, "planned_steps": 320},
            0.9,
            "It ended when it got no better.",
        ),
        (
            {
                "ending": "time limit",
                "steps": 210,
                "planned_steps": 640,
                "more_time": {"minutes": 6.4, "steps": 430, "why": "time limit"},
            },
            0.9,
            "It had time for 210 of 640 steps; about 6 more minutes would make the rest. "
            "Go on learning to use them.",
        ),
        (
            {
                "ending": "complete",
                "steps": 640,
                "planned_steps": 640,
                "more_time": {"minutes": 0.2, "steps": 160, "why": "validation still rises"},
            },
            0.9,
            "The validation DSC was still rising when it was last measured; about 1 more minute "
            "would make 160 further steps. Go on learning to use it.",
        ),
        ({"steps": 9, "more_time": {"minutes": 1e999, "steps": 1, "why": "time limit"}}, 0.9, ""),
        ({"steps": 9, "more_time": [3]}, 0.9, ""),
        (
            {"ending": "complete", "steps": 160, "planned_steps": 160, "earlier_steps": 640},
            0.9,
            "It went on learning for 160 steps, after 640 before.",
        ),
        ({"ending": "power cut"}, 0.9, "How it ended: power cut."),
        ({"ending": "complete", "steps": "16", "planned_steps": None}, 0.9, ""),
    ],
)
def test_a_card_says_how_it_ended(section, folder, panel, training, dsc, words):
    write_model(folder / "liver.safetensors", dsc=dsc, training=training)
    panel.exit()
    panel.enter()
    select(section, "liver")
    card = section.ui.cardLabel.text
    between = card[card.index("of 2 volumes.") + len("of 2 volumes.") : card.index("DSC 0.900")]
    assert between.strip() == words


def test_a_card_says_that_nothing_was_learnt(section, folder, panel):
    write_model(folder / "liver.safetensors", dsc=0.012, volumes=1, held_out=1)
    panel.exit()
    panel.enter()
    select(section, "liver")
    card = section.ui.cardLabel.text
    assert "9 labelled, of 1 volume. DSC 0.012 on 1 held-out slice." in card
    assert card.endswith("It has learnt nothing that can be measured.")
    select(section, "kidney")
    assert "nothing that can" not in section.ui.cardLabel.text


def test_a_card_keeps_what_was_measured_before_it_went_on(section, folder, panel):
    for held_out, words in ((1, "1 held-out slice."), (7, "7 held-out slices.")):
        before = {"validation_dsc": 0.834, "held_out_slices": held_out}
        further = {"before_going_on": before, "held_out": "none"}
        write_model(folder / "liver.safetensors", dsc=None, further=further)
        panel.exit()
        panel.enter()
        assert section.ui.modelsTable.item(1, 4).text() == "-"
        select(section, "liver")
        card = section.ui.cardLabel.text
        assert "as all slices were learnt from. Before that: DSC 0.834 on" in card
        assert words in card and "nothing could be held out" not in card


def test_a_card_tells_what_was_measured_beside_the_dsc(section, folder, panel):
    measured = {"validation_iou": 0.8384, "validation_nsd": 0.951, "nsd_tolerance_mm": 2.0}
    figures = "IoU 0.838; in the plane of the slices NSD 0.951 at 2 mm"
    for distance, words in ((1.2345, f"{figures} and HD95 1.23 mm."), (None, f"{figures}.")):
        further = {**measured, "validation_hd95_mm": distance}
        write_model(folder / "liver.safetensors", further=further)
        panel.exit()
        panel.enter()
        select(section, "liver")
        assert f"DSC 0.912 on 2 held-out slices. {words}" in section.ui.cardLabel.text
    select(section, "kidney")
    assert "IoU" not in section.ui.cardLabel.text


def test_nothing_is_cleared_while_a_job_is_prepared(section, panel, monkeypatch):
    from SAMFineTunePanel.jobs.job import Job

    class Storage:
        bytes, running = 1, 0

    monkeypatch.setattr(section, "_used", Storage)
    section.update()
    assert section.ui.clearStorageButton.enabled
    preparing = Job("finetune", "Fine-tune", Path("no such folder"), iter(()), iter)
    monkeypatch.setattr(panel.logic._state, "job", preparing)
    section.update()
    assert "at work" in section.ui.clearStorageButton.toolTip
    assert not section.ui.clearStorageButton.enabled


def test_without_a_selection_buttons_say_so(section):
    for button in (section.ui.renameButton, section.ui.deleteButton, section.ui.exportButton):
        assert not button.enabled and "Select a model" in button.toolTip
    assert section.ui.importButton.enabled


def test_a_damaged_file_is_listed_with_its_fault(section, folder, panel):
    (folder / "broken.safetensors").write_bytes(b"nothing of the kind")
    panel.exit()
    panel.enter()
    assert names(section) == ["broken", "kidney", "liver"]
    select(section, "broken")
    assert section.ui.cardLabel.text.startswith("⚠") and section.ui.deleteButton.enabled
    assert (
        not section.ui.exportButton.enabled
        and section.ui.exportButton.toolTip in section.ui.cardLabel.text
    )
    assert "broken" not in " ".join(offered(panel.panel.apply.ui.modelComboBox))


def test_models_are_offered_to_apply_and_to_start_from(section, panel):
    assert offered(panel.panel.apply.ui.modelComboBox) == ["kidney (left, right)", "liver (liver)"]
    # The latest, where nothing was chosen.
    assert panel.panel.apply.parameterNode.applyModel == "liver"
    assert offered(panel.panel.model.ui.startFromComboBox)[1:] == [
        "tuned model kidney",
        "tuned model liver",
    ]


def test_a_name_is_edited_where_it_stands(section, panel, folder, process_events):
    node = panel.panel.model.parameterNode
    node.startFrom = node.correctModel = "liver"
    select(section, "liver")
    section.ui.renameButton.click()
    editor = section.ui.modelsTable.findChild(QLineEdit)
    editor.setText("liver 3 mm")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    process_events(lambda: names(section) == ["kidney", "liver 3 mm"])
    assert (folder / "liver 3 mm.safetensors").is_file()
    # What had been chosen stays chosen.
    assert panel.panel.apply.parameterNode.applyModel == "liver 3 mm"
    assert node.startFrom == node.correctModel == "liver 3 mm"
    process_events(lambda: "liver 3 mm" in section.ui.statusLabel.text)


def test_a_name_that_is_taken_is_refused_in_the_panel(section, folder, process_events):
    section.ui.modelsTable.item(names(section).index("liver"), 0).setText("kidney")
    assert names(section) == ["kidney", "liver"]
    assert section.ui.errorLabel.visible and "kidney" in section.ui.errorLabel.text
    assert sorted(each.stem for each in folder.iterdir()) == ["kidney", "liver"]


def test_delete_asks_first(section, folder, process_events, slicer_app):
    select(section, "kidney")
    dialogs.answer_next(False)
    section.ui.deleteButton.click()
    assert (folder / "kidney.safetensors").is_file()
    dialogs.answer_next(True)
    section.ui.deleteButton.click()
    process_events(lambda: names(section) == ["liver"])
    assert not (folder / "kidney.safetensors").exists()


def test_a_model_goes_out_and_comes_back(section, folder, tmp_path, process_events):
    select(section, "liver")
    dialogs.answer_next(str(tmp_path / "for a colleague"))
    section.ui.exportButton.click()
    exported = tmp_path / "for a colleague.safetensors"
    assert exported.read_bytes() == (folder / "liver.safetensors").read_bytes()
    dialogs.answer_next(str(exported))
    section.ui.importButton.click()
    process_events(lambda: len(names(section)) == 3)
    assert "for a colleague" in names(section)
    # The dialog asks whether to replace the file of the name that was typed, and of no other.
    exported.write_bytes(b"another's")
    select(section, "liver")
    dialogs.answer_next(str(tmp_path / "for a colleague"))
    section.ui.exportButton.click()
    assert "is there already" in section.ui.errorLabel.text
    assert exported.read_bytes() == b"another's"
    dialogs.answer_next(str(exported))
    section.ui.exportButton.click()
    assert exported.read_bytes() == (folder / "liver.safetensors").read_bytes()


def test_a_dialog_that_is_cancelled_does_nothing(section, folder):
    select(section, "liver")
    dialogs.answer_next("")
    section.ui.exportButton.click()
    dialogs.answer_next("")
    section.ui.importButton.click()
    assert len(list(folder.iterdir())) == 2 and not section.ui.errorLabel.visible


def test_what_is_no_model_is_refused_in_the_panel(section, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"not a model")
    dialogs.answer_next(str(other))
    section.ui.importButton.click()
    assert section.ui.errorLabel.visible and len(names(section)) == 2


def test_storage_is_shown_and_cleared_when_asked(section, folder, panel, process_events):
    assert (
        not section.ui.clearStorageButton.enabled
        and "nothing to clear" in section.ui.clearStorageButton.toolTip
    )
    weights = Path(os.environ["SAMFINETUNE_CACHE"]) / "checkpoints" / "mobile_sam.pt.part"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"0" * 3_000_000)
    slices = weights.parents[1] / "embeddings" / "a1" / "prompted_00001.safetensors"
    slices.parent.mkdir(parents=True)
    slices.write_bytes(b"0" * 5_000_000)
    panel.exit()
    panel.enter()
    assert "weights 3 MB" in section.ui.storageLabel.text
    assert (
        "correcting 5 MB" in section.ui.storageLabel.text and section.ui.clearStorageButton.enabled
    )
    dialogs.answer_next(True)
    section.ui.clearStorageButton.click()
    process_events(lambda: "weights 0 MB" in section.ui.storageLabel.text)
    assert not weights.exists() and not slices.exists() and len(list(folder.iterdir())) == 2


def test_without_models_apply_says_what_to_do(folder, panel):
    panel.exit()
    panel.enter()
    apply = panel.panel.apply.ui
    for widget in (apply.applyButton, apply.modelComboBox):
        assert not widget.enabled and "fine-tune or import" in widget.toolTip
    assert "fine-tune or import" in panel.panel.models.ui.cardLabel.text
