"""The host's CTK and MRML widgets behave as Slicer's where the module relies on it."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.host import expected_errors


@pytest.fixture
def slicer(slicer_app: Any, scene: Any) -> Any:
    return slicer_app


def volume(slicer: Any, name: str) -> Any:
    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name=name)


def segmentation(slicer: Any, *names: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    for name in names:
        node.GetSegmentation().AddEmptySegment(name, name.title())
    return node


def selector(slicer: Any, kind: str = "qMRMLNodeComboBox") -> Any:
    widget = getattr(slicer, kind)()
    widget.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    widget.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    return widget


def test_selector_follows_the_scene(slicer: Any) -> None:
    widget, heard = selector(slicer), []
    widget.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    widget.connect("currentNodeChanged(bool)", heard.append)
    widget.setMRMLScene(slicer.mrmlScene)
    first = volume(slicer, "first")
    assert heard == [first, True] and widget.currentNode() is first
    second = volume(slicer, "second")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert widget.nodeCount() == 2 and widget.currentNodeID == first.GetID()
    slicer.mrmlScene.RemoveNode(first)
    assert widget.currentNode() is second
    heard.clear()
    slicer.mrmlScene.Clear(0)
    assert heard == [None, False] and widget.currentNode() is None


def test_selector_can_be_set_to_none_and_before_it_has_a_scene(slicer: Any) -> None:
    volume(slicer, "first")
    second = volume(slicer, "second")
    widget = selector(slicer)
    widget.setCurrentNode(second)
    widget.setMRMLScene(slicer.mrmlScene)
    assert widget.currentNode() is second
    widget.setCurrentNode(None)
    assert widget.currentNode() is None and widget.currentNodeID == ""
    volume(slicer, "third")
    assert widget.currentNode() is None
    with pytest.raises(ValueError, match="no MRML node"):
        widget.setCurrentNode("second")


@pytest.mark.parametrize("with_none", [True, False])
def test_selector_loses_its_node_when_a_scene_is_imported(slicer: Any, with_none: bool) -> None:
    scene = slicer.mrmlScene
    first, second = volume(slicer, "first"), volume(slicer, "second")
    widget, heard = selector(slicer), []
    widget.noneEnabled = with_none
    widget.setMRMLScene(scene)
    widget.setCurrentNode(second)
    widget.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    scene.StartState(scene.BatchProcessState)
    volume(slicer, "third")
    assert widget.nodeCount() == 3
    scene.StartState(scene.ImportState)
    fourth = volume(slicer, "fourth")
    widget.setCurrentNode(fourth)
    # What it has not heard of cannot be chosen: it goes to none, or stays without a node.
    assert widget.nodeCount() == 3 and heard == [None]
    widget.setCurrentNode(second)
    heard.clear()
    scene.EndState(scene.ImportState)
    assert widget.nodeCount() == 4 and widget.currentNode() is (None if with_none else first)
    assert heard == ([None] if with_none else [None, first])
    scene.EndState(scene.BatchProcessState)
    assert len(heard) == 1 + (not with_none)


def test_path_tells_of_no_emptied_field(slicer: Any) -> None:
    import ctk

    widget, heard = ctk.ctkPathLineEdit(), []
    widget.connect("currentPathChanged(QString)", heard.append)
    widget.connect("validInputChanged(bool)", heard.append)
    widget.currentPath = "a.pth"
    widget.currentPath = "b.pth"
    assert heard == ["a.pth", True, "b.pth"]
    widget.currentPath = ""
    assert heard[3:] == [False] and widget.currentPath == ""


def test_selector_makes_and_renames_nodes(slicer: Any) -> None:
    import qt

    widget = selector(slicer)
    widget.noneEnabled = True
    widget.baseName = "Result"
    widget.setMRMLScene(slicer.mrmlScene)
    made = widget.addNode()
    assert widget.currentNode() is made and made.GetName() == "Result"
    combo = next(child for child in widget.children() if isinstance(child, qt.QComboBox))
    made.SetName("Other")
    assert combo.currentText == "Other"
    with expected_errors("vtkMRMLModelNode is none of the types"):
        assert widget.addNode("vtkMRMLModelNode") is None


def test_checkable_selector(slicer: Any) -> None:
    import qt

    widget, heard = selector(slicer, "qMRMLCheckableNodeComboBox"), []
    widget.connect("checkedNodesChanged()", lambda: heard.append(len(widget.checkedNodes())))
    widget.setMRMLScene(slicer.mrmlScene)
    first, second = volume(slicer, "first"), volume(slicer, "second")
    widget.setCheckState(second, qt.Qt.Checked)
    widget.check(first)
    assert widget.checkedNodes() == (first, second) and widget.allChecked()
    slicer.mrmlScene.RemoveNode(first)
    assert widget.checkedNodes() == (second,) and heard == [1, 2, 1]
    with pytest.raises(ValueError, match=r"no Qt\.CheckState"):
        widget.setCheckState(second, 2)


def test_segments_table(slicer: Any) -> None:
    node = segmentation(slicer, "liver", "spleen")
    table, heard = slicer.qMRMLSegmentsTableView(), []
    table.setMRMLScene(slicer.mrmlScene)
    table.connect("selectionChanged(QItemSelection,QItemSelection)", lambda: heard.append(1))
    table.setSegmentationNode(node)
    table.setSelectedSegmentIDs(["spleen"])
    assert table.selectedSegmentIDs() == ("spleen",) and table.segmentCount == 2 and heard
    node.GetSegmentation().AddEmptySegment("kidney", "Kidney")
    assert table.segmentCount == 3 and table.selectedSegmentIDs() == ("spleen",)
    slicer.mrmlScene.RemoveNode(node)
    table.setSegmentationNode(None)
    assert table.segmentCount == 0


def test_segment_selector(slicer: Any) -> None:
    widget, heard = slicer.qMRMLSegmentSelectorWidget(), []
    widget.connect("currentSegmentChanged(QString)", heard.append)
    widget.setMRMLScene(slicer.mrmlScene)
    node = segmentation(slicer, "liver", "spleen")
    assert widget.currentNode() is node and widget.currentSegmentID() == "liver"
    widget.setCurrentSegmentID("spleen")
    node.GetSegmentation().RemoveSegment("spleen")
    assert widget.segmentIDs() == ("liver",) and heard == ["liver", "spleen", "liver"]


def test_widgets_leave_no_observers_behind(slicer: Any, process_events: Any) -> None:
    # Nothing else observes the change of a name.
    node, heard = volume(slicer, "first"), []
    by_hand, forgotten = selector(slicer), selector(slicer)
    for widget in (by_hand, forgotten):
        widget.setMRMLScene(slicer.mrmlScene)
        widget.connect("currentNodeChanged(bool)", heard.append)
    node.SetName("second")
    assert heard == [True, True]
    by_hand.delete()
    del forgotten, widget
    gc.collect()
    node.SetName("third")
    volume(slicer, "fourth")
    process_events()
    assert heard == [True, True]


def test_section_hides_its_children_while_collapsed(slicer: Any) -> None:
    import ctk
    import qt

    section, heard = ctk.ctkCollapsibleButton("Section"), []
    layout = qt.QVBoxLayout(section)
    seen, hidden, late = qt.QLabel("a"), qt.QLabel("b"), qt.QLabel("c")
    for label in (seen, hidden, late):
        layout.addWidget(label)
    hidden.visible = False
    late.visible = False
    section.connect("contentsCollapsed(bool)", heard.append)
    section.show()
    tall = section.sizeHint.height()
    section.collapsed = True
    late.visible = True
    assert not seen.visible and not late.visible and section.maximumHeight < tall
    section.collapsed = False
    assert seen.visible and late.visible and not hidden.visible
    assert heard == [True, False]


# The host's classes and the headers, in Slicer's source tree, that say what PythonQt shows of them.
HEADERS = {
    "qMRMLWidget": "Libs/MRML/Widgets",
    "qMRMLNodeComboBox": "Libs/MRML/Widgets",
    "qMRMLCheckableNodeComboBox": "Libs/MRML/Widgets",
    "qMRMLSegmentSelectorWidget": "Libs/MRML/Widgets",
    "qMRMLSegmentsTableView": "Modules/Loadable/Segmentations/Widgets",
}


def exposed(header: str) -> set[str]:
    """Names of properties, signals, public slots and invokable methods."""
    header = re.sub(r"//.*|/\*(?s:.)*?\*/", "", header)
    names = set(re.findall(r"Q_PROPERTY\(\S+ (\w+)", header))
    names |= set(re.findall(r"Q_INVOKABLE[^;]*?(\w+)\(", header))
    for section in re.split(r"\n(?=public slots:|signals:|protected|private|public:)", header):
        if section.startswith(("public slots:", "signals:")):
            names |= set(re.findall(r"^.*?(\w+)\(", section, re.MULTILINE))
    return names


@pytest.mark.parametrize("class_name", HEADERS)
def test_widgets_show_only_what_python_qt_shows(slicer: Any, class_name: str) -> None:
    sources = os.environ.get("SLICER_PYTHON")
    if not sources:
        pytest.skip("needs SLICER_PYTHON, the folder Base/Python/slicer of Slicer's sources")
    known: set[str] = set()
    for base in getattr(slicer, class_name).__mro__:
        if base.__name__ in HEADERS:
            path = Path(sources).parents[2] / HEADERS[base.__name__] / f"{base.__name__}.h"
            known |= exposed(path.read_text(encoding="utf-8"))
    own = vars(getattr(slicer, class_name))
    # Virtual methods that Qt calls; PythonQt shows those of all QWidgets.
    events = {name for name in own if name.endswith("Event") or name == "eventFilter"}
    public = {name for name in own if not name.startswith("_")} - events - {"staticMetaObject"}
    assert public and public <= known, public - known
