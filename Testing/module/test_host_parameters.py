"""Parameter nodes: bound to widgets, kept in scenes, and stored as Slicer's own wrapper does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

from Testing.support.repository import REPOSITORY

EXCHANGE = REPOSITORY / "Testing" / "support" / "parameter_exchange.py"


@pytest.fixture
def parameters(slicer_app: Any, scene: Any) -> Any:
    from slicer import vtkMRMLModelNode
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

    class Parameters:
        share: Annotated[float, WithinRange(0, 1)] = 0.5
        count: Annotated[int, WithinRange(1, 9)] = 2
        flag: bool
        text: str = "start"
        choice: Annotated[str, Choice(["a", "b"])] = "a"
        model: vtkMRMLModelNode
        names: list[str]

    # Types are looked up in the module's names, not the function's.
    Parameters.__annotations__ = {
        "share": Annotated[float, WithinRange(0, 1)],
        "count": Annotated[int, WithinRange(1, 9)],
        "flag": bool,
        "text": str,
        "choice": Annotated[str, Choice(["a", "b"])],
        "model": vtkMRMLModelNode,
        "names": list[str],
    }
    return parameterNodeWrapper(Parameters)(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def test_values_are_checked(parameters: Any, scene: Any) -> None:
    for name, value in (
        ("share", 2.0),
        ("share", "much"),
        ("count", 1.5),
        ("flag", 1),
        ("text", None),
        ("choice", "c"),
        ("model", scene.AddNewNodeByClass("vtkMRMLTextNode")),
    ):
        with pytest.raises((TypeError, ValueError)):
            setattr(parameters, name, value)
    parameters.names = ["x"]
    with pytest.raises((TypeError, ValueError)):
        parameters.names.append(4)
    assert list(parameters.names) == ["x"]
    with pytest.raises(NotImplementedError):
        _ = parameters.names.__add__(["y"])


def test_nodes_are_references(parameters: Any, scene: Any) -> None:
    model = scene.AddNewNodeByClass("vtkMRMLModelNode")
    parameters.model = model
    assert parameters.model is model
    scene.RemoveNode(model)
    assert parameters.model is None


def test_gui_is_bound_both_ways(slicer_app: Any, parameters: Any, scene: Any) -> None:
    import qt

    form = qt.QWidget()
    layout = qt.QVBoxLayout(form)
    kinds = {
        "share": qt.QDoubleSpinBox,
        "count": qt.QSpinBox,
        "flag": qt.QCheckBox,
        "text": qt.QLineEdit,
        "choice": qt.QComboBox,
        "model": slicer_app.qMRMLNodeComboBox,
    }
    widgets = {name: kind() for name, kind in kinds.items()}
    for name, widget in widgets.items():
        widget.setProperty("SlicerParameterName", name)
        layout.addWidget(widget)
    widgets["model"].noneEnabled = True
    widgets["model"].setMRMLScene(scene)
    tag = parameters.connectGui(form)
    assert (widgets["share"].value, widgets["share"].maximum) == (0.5, 1.0)
    assert (widgets["text"].text, widgets["choice"].count) == ("start", 2)
    widgets["share"].value = 0.25
    widgets["flag"].checked = True
    widgets["choice"].currentIndex = 1
    made = widgets["model"].addNode()
    assert (parameters.share, parameters.flag, parameters.choice) == (0.25, True, "b")
    assert parameters.model is made
    parameters.count = 7
    parameters.text = "changed"
    assert (widgets["count"].value, widgets["text"].text) == (7, "changed")
    parameters.disconnectGui(tag)
    parameters.count = 3
    widgets["share"].value = 1.0
    assert (widgets["count"].value, parameters.share) == (7, 0.25)


def test_widgets_without_a_connector_are_refused(slicer_app: Any, parameters: Any) -> None:
    import qt

    for name, widget in (("text", qt.QPlainTextEdit()), ("names", qt.QLineEdit())):
        with pytest.raises(Exception, match="connector"):
            parameters.connectParametersToGui({name: widget})
    with pytest.raises(ValueError, match="nothing"):
        parameters.connectParametersToGui({"nothing": qt.QLineEdit()})


def exchange(path: Path, sources: str | None, *actions: str) -> list[dict[str, Any]]:
    """What the parameters are after each action, "write" or "read", in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "SLICER_PYTHON"}
    if sources:
        environment["SLICER_PYTHON"] = sources
    done = subprocess.run(
        [sys.executable, str(EXCHANGE), str(path), *actions],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_host_reads_what_it_wrote(tmp_path: Path) -> None:
    written, read = exchange(tmp_path / "own.mrml", None, "write", "read")
    assert written["values"]["pairs"][0] == ["m1", None, ["x", "y | z"], [1, 3], "ä: ö", -1]
    assert written["stored"]["parameters"]["pairs.0.numbers.len"] == "2"
    assert read == written


def test_host_and_slicer_read_each_other(tmp_path: Path) -> None:
    sources = os.environ.get("SLICER_PYTHON")
    if not sources:
        pytest.skip("needs SLICER_PYTHON, the folder Base/Python/slicer of Slicer's sources")
    own, real = tmp_path / "own.mrml", tmp_path / "real.mrml"
    (written,) = exchange(own, None, "write")
    assert exchange(real, sources, "write") == [written]
    assert exchange(own, sources, "read") == [written]
    assert exchange(real, None, "read") == [written]
