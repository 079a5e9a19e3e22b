"""The panel at 400 pixels: nothing cut off, all reachable by keyboard, every refusal explained."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QWidget,
)

from Testing.support.model_files import write_model
from Testing.support.repository import REPOSITORY
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement

SHAPE = (12, 16, 16)
# What Slicer's module panel leaves of 400 pixels: a scroll bar and margins.
ROOM = 376
UI = REPOSITORY / "Resources" / "UI"


@pytest.fixture
def settle(process_events):
    """Lets layouts and timers do their work."""

    def wait(seconds: float = 0.3) -> None:
        end = time.monotonic() + seconds
        process_events(lambda: time.monotonic() > end)

    return wait


@pytest.fixture
def full_panel(panel, settle):
    """Long names everywhere, an example, a model, all sections and groups open."""
    name = "CT thorax abdomen pelvis portal venous phase 1.25 mm soft tissue kernel"
    volume = add_volume(np.zeros(SHAPE), placement(), name)
    mask = box(SHAPE, (5, 6), (2, 12), (2, 12))
    add_segmentation(
        volume, {"left atrial appendage and pulmonary veins": mask, "b": mask}, name + " labels"
    )
    write_model(
        Path(os.environ["SAMFINETUNE_MODELS"]) / f"{name}.safetensors",
        tuple(f"structure{n}" for n in range(9)),
    )
    panel.exit()
    panel.enter()
    panel.panel.examples.ui.addButton.click()
    settle()
    before = {}
    for section in panel.panel._working:
        for part in ("collapsibleButton", "advancedGroupBox", "logGroupBox", "unlabelledGroupBox"):
            if hasattr(section.ui, part):
                before[getattr(section.ui, part)] = getattr(section.ui, part).collapsed
                getattr(section.ui, part).collapsed = False
    settle()
    yield panel
    for part, collapsed in before.items():
        part.collapsed = collapsed


def widgets(panel, kind) -> list[QWidget]:
    return [
        each
        for section in panel.panel._working
        for each in section.widget.findChildren(kind)
        if each.isVisibleTo(section.widget)
    ]


@pytest.mark.parametrize("width", [400, 460])
def test_it_fits_the_width(full_panel, module, settle, width):
    container = module.widgetRepresentation()
    container.resize(width, 2500)
    settle()
    for section in full_panel.panel._working:
        assert section.widget.minimumSizeHint.width() <= ROOM, section.uiFile
    assert container.width == width
    for each in widgets(full_panel, QWidget):
        assert each.mapTo(container, each.rect.topRight()).x() <= width, each.name


def test_no_button_or_label_is_cut(full_panel, module, settle):
    container = module.widgetRepresentation()
    container.resize(400, 2500)
    settle()
    cut = [
        f"{each.name}: {each.text}"
        for each in widgets(full_panel, QPushButton)
        if each.width < QFontMetrics(each.font).horizontalAdvance(each.text.replace("&", "")) + 8
    ]
    cut += [
        f"{each.name}: {each.text}"
        for each in widgets(full_panel, QLabel)
        if each.text and not each.wordWrap and each.width < each.sizeHint.width()
    ]
    assert cut == []


def test_everything_that_is_disabled_says_why(full_panel):
    silent = [
        each.name
        for kind in (QAbstractButton, QComboBox, QAbstractSpinBox)
        for each in widgets(full_panel, kind)
        if not each.enabled and each.name and not each.toolTip
    ]
    assert silent == []


def test_everything_has_a_tooltip_or_a_mark_of_its_own(full_panel):
    bare = [
        each.name
        for kind in (QPushButton, QCheckBox, QComboBox, QAbstractSpinBox, QLineEdit, QTableWidget)
        for each in widgets(full_panel, kind)
        if each.name and not each.name.startswith("qt_") and not each.toolTip
    ]
    assert bare == []


def test_everything_is_reached_by_the_tab_key(full_panel):
    unreachable = [
        each.name
        for kind in (QPushButton, QCheckBox, QComboBox, QAbstractSpinBox, QTableWidget)
        for each in widgets(full_panel, kind)
        if each.name and not each.focusPolicy & Qt.FocusPolicy.TabFocus
    ]
    assert unreachable == []
    # A table must let the key through to what comes next.
    assert not any(each.tabKeyNavigation for each in widgets(full_panel, QTableWidget))


def test_no_two_widgets_answer_to_the_same_key(full_panel):
    texts = [each.text for kind in (QAbstractButton, QLabel) for each in widgets(full_panel, kind)]
    keys = [match.group(1).lower() for text in texts if (match := re.search(r"&(\w)", text))]
    assert sorted(keys) == sorted(set(keys))
    # Slicer's own menus: File, Edit, View, Help.
    assert not set(keys) & set("fevh")


def test_sections_come_in_the_order_of_work(full_panel):
    titles = [section.ui.collapsibleButton.text for section in full_panel.panel._working]
    assert titles == ["Examples", "Model", "Fine-tune", "Apply", "Correct", "Tuned models"]
    heights = [section.widget.y for section in full_panel.panel._working]
    assert heights == sorted(heights)


@pytest.mark.parametrize("file", sorted(each.name for each in UI.glob("*.ui")))
def test_node_selectors_get_the_scene_in_slicer(file):
    """The .ui files connect the scene to each selector, as Slicer's own do."""
    text = (UI / file).read_text(encoding="utf-8")
    selectors = re.findall(r'class="qMRML(?:Checkable)?NodeComboBox" name="(\w+)"', text)
    assert sorted(re.findall(r"<receiver>(\w+)</receiver>", text)) == sorted(selectors)
    parameters = re.findall(
        r'<property name="SlicerParameterName" stdset="0">\s*<string>(\w+)</string>', text
    )
    from SAMFineTunePanel.parameter_node import SAMFineTuneParameterNode

    assert set(parameters) <= set(SAMFineTuneParameterNode.allParameters)
