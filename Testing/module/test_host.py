"""The host's Qt: as strict as PythonQt, and nothing that goes wrong unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from Testing import run_module_tests
from Testing.host import dialogs, errors, expected_errors

UI = """<ui version="4.0"><class>Form</class>
<widget class="QWidget" name="Form"><layout class="QVBoxLayout">
  <item><widget class="{kind}" name="first">{properties}</widget></item>
  <item><widget class="QLineEdit" name="second"/></item>
</layout></widget>
<connections><connection><sender>first</sender><signal>{signal}</signal>
  <receiver>second</receiver><slot>clear()</slot></connection></connections></ui>"""


@pytest.fixture
def qt(slicer_app: Any) -> Any:
    import qt

    return qt


def load_ui(
    tmp_path: Path, kind: str = "QPushButton", properties: str = "", signal: str = "clicked()"
) -> Any:
    import slicer

    path = tmp_path / "form.ui"
    path.write_text(UI.format(kind=kind, properties=properties, signal=signal), encoding="utf-8")
    return slicer.util.loadUI(str(path))


def test_property_wins_over_method_of_its_name(qt: Any) -> None:
    button = qt.QPushButton("Go")
    assert (button.text, button.enabled, button.checked) == ("Go", True, False)
    button.text = "Stop"
    button.name = "stop"
    assert (button.text, button.objectName) == ("Stop", "stop")
    with pytest.raises(TypeError):
        button.text()


@pytest.mark.parametrize(
    "statement",
    [
        "button.nothing",
        "button.nothing = 1",
        "button._nothing = 1",
        "button.setText = 1",
        "button.text = 5",
        "button.checked = 'yes'",
        "button.size.nothing",
        "label.alignment = 4",
        "label.selectedText = 'x'",
        "selector.setNodeTypes(['vtkMRMLModelNode'])",
        "selector.nodeTypes()",
        "selector.nodeTypes = 'vtkMRMLModelNode'",
        "selector.noneEnabled = 1",
        "selector.nothing = 1",
        "section.setCollapsed(True)",
        "module.nothing = 1",
        "qt.Signal",
        "slicer.qMRMLSomethingWidget",
        "slicer.app.nothing",
    ],
)
def test_what_python_qt_refuses_is_refused(slicer_app: Any, statement: str) -> None:
    import ctk
    import qt
    import slicer

    from Testing.host.module_container import qSlicerScriptedLoadableModule

    names = {
        "qt": qt,
        "slicer": slicer,
        "button": qt.QPushButton("Go"),
        "label": qt.QLabel("x"),
        "selector": slicer.qMRMLNodeComboBox(),
        "section": ctk.ctkCollapsibleButton(),
        "module": qSlicerScriptedLoadableModule("M", "/m.py"),
    }
    with pytest.raises((AttributeError, TypeError)):
        exec(statement, names)


def test_a_widget_that_the_host_lacks_cannot_be_made(slicer_app: Any) -> None:
    import ctk

    with pytest.raises(NotImplementedError):
        ctk.ctkSliderWidget()


def test_attributes_of_python_subclasses_are_free(qt: Any) -> None:
    class Own(qt.QWidget):
        pass

    own = Own()
    own.anything = 3
    assert own.anything == 3 and own.visible is False


def test_children_are_attributes_by_name(qt: Any) -> None:
    parent = qt.QWidget()
    child = qt.QLabel("x", parent)
    child.objectName = "inner"
    assert parent.inner is child
    parent.setProperty("Own", 4)
    assert parent.Own == 4


def test_connect_cuts_arguments_to_what_the_slot_takes(qt: Any) -> None:
    button = qt.QPushButton()
    button.checkable = True
    heard: list[Any] = []

    def without() -> None:
        heard.append("without")

    button.connect("clicked(bool)", without)
    button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.connect("clicked()", lambda *all_of_them: heard.append(all_of_them))
    button.toggled.connect(without)
    button.click()
    assert heard == ["without", "without", True, ()]
    assert button.disconnect("clicked(bool)", without)
    assert not button.disconnect("clicked(bool)", without)
    button.toggled.disconnect(without)
    heard.clear()
    button.click()
    assert heard == [False, ()]


def test_unknown_signal_is_an_error(qt: Any) -> None:
    with expected_errors("signal 'clacked()' does not exist on QPushButton"):
        assert not qt.QPushButton().connect("clacked()", print)


def test_exceptions_that_nobody_sees_are_errors(qt: Any, process_events: Any) -> None:
    def fail(*ignored: Any) -> None:
        raise KeyError("in a slot")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    with expected_errors("in a slot"):
        button.click()
    other = qt.QPushButton()
    other.clicked.connect(fail)
    with expected_errors("in a slot"):
        other.click()
    for milliseconds in (0, 10):
        with expected_errors("in a slot") as taken:
            qt.QTimer.singleShot(milliseconds, fail)
            process_events(lambda: len(errors) > 0)
        assert len(taken) == 1


def test_errors_of_vtk_observers_and_qt_are_errors(slicer_app: Any, scene: Any, qt: Any) -> None:
    import vtk

    def fail(caller: Any, event: str) -> None:
        raise KeyError("in an observer")

    node = scene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    with expected_errors("in an observer"):
        node.Modified()
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    with expected_errors("control point 3 does not exist"):
        markups.GetNthControlPointPositionWorld(3)
    widget = qt.QWidget()
    first = qt.QVBoxLayout(widget)
    with expected_errors("already has a layout"):
        qt.QHBoxLayout(widget)
    assert widget.layout() is first


def test_none_outlives_many_calls(qt: Any) -> None:
    code = """
from Testing.host import boot
boot()
import qt
label = qt.QLabel()
set_text = label.setText
for _ in range(20000):
    set_text("x")
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=run_module_tests.REPOSITORY, check=False).returncode == 0


def test_expected_errors_must_come(slicer_app: Any) -> None:
    with pytest.raises(AssertionError, match="no error with 'this'"), expected_errors("this"):
        pass


def test_dialogs_are_answered_by_the_test(slicer_app: Any, qt: Any) -> None:
    dialogs.answer_next("/folder/file.txt")
    assert qt.QFileDialog.getOpenFileName(None, "Open what?") == "/folder/file.txt"
    dialogs.answer_next(True)
    assert slicer_app.util.confirmOkCancelDisplay("Delete it?") is True
    assert slicer_app.util.confirmOkCancelDisplay("Delete it?") is False
    slicer_app.util.infoDisplay("Done.")
    assert [one.kind for one in dialogs.shown] == ["open file", "confirm", "confirm", "info"]
    with expected_errors("waits for an answer"):
        assert qt.QFileDialog.getSaveFileName(None, "Save where?") == ""
    with expected_errors("It broke."):
        slicer_app.util.errorDisplay("It broke.")


def test_try_with_error_display_in_a_slot_is_an_error(slicer_app: Any, qt: Any) -> None:
    def fail() -> None:
        with slicer_app.util.tryWithErrorDisplay("Could not.", waitCursor=True):
            raise ValueError("for this reason")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    with expected_errors("for this reason"):
        button.click()


def test_process_talks_both_ways(qt: Any, process_events: Any) -> None:
    code = "import os,sys; print(os.environ['GREETING'] + sys.stdin.read()); sys.exit(3)"
    process, ended = qt.QProcess(), []
    environment = qt.QProcessEnvironment.systemEnvironment()
    environment.insert("GREETING", "ä ")
    environment.insert("PYTHONIOENCODING", "utf-8")
    process.setProcessEnvironment(environment)
    process.connect(
        "finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, status))
    )
    process.start(sys.executable, ["-c", code])
    assert process.waitForStarted()
    process.write(b"hello")
    process.closeWriteChannel()
    process_events(lambda: ended)
    assert ended == [(3, qt.QProcess.NormalExit)]
    assert process.readAllStandardOutput().data().decode("utf-8").strip() == "ä hello"


def test_ui_file_gives_named_widgets_and_connections(slicer_app: Any, tmp_path: Path) -> None:
    widget = load_ui(tmp_path, properties='<property name="text"><string>Go</string></property>')
    ui = slicer_app.util.childWidgetVariables(widget)
    ui.second.text = "gone soon"
    ui.first.click()
    assert (ui.first.text, ui.second.text) == ("Go", "")


def test_faults_of_ui_files_are_errors(slicer_app: Any, tmp_path: Path) -> None:
    with expected_errors("unknown widget class 'qMRMLNothing'"), pytest.raises(RuntimeError):
        load_ui(tmp_path, kind="qMRMLNothing")
    wrong = '<property name="colour"><string>red</string></property>'
    with expected_errors("'first' has no property 'colour'"):
        load_ui(tmp_path, properties=wrong)
    with expected_errors("signal 'pushed()' does not exist"):
        load_ui(tmp_path, signal="pushed()")


def test_module_is_written_for_python_qt(slicer_app: Any, tmp_path: Path) -> None:
    from Testing.host.idioms import foreign_idioms

    bad = tmp_path / "bad.py"
    bad.write_text(
        "import PySide6\nx = qt.QFrame.Shape.NoFrame\ny = qt.QFrame.NoFrame\nd.exec()\n"
        "EDITS = (qt.QLineEdit,)\nisinstance(a, EDITS)\n"
        "isinstance(a, qt.QWidget)\nisinstance(a, str)\n"
    )
    assert [one.split(":")[1] for one in foreign_idioms(bad)] == ["1", "2", "4", "6", "7"]
    sources = (run_module_tests.REPOSITORY / "SAMFineTune").rglob("*.py")
    assert [words for path in sources for words in foreign_idioms(path)] == []


def test_runner_survives_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the module's tests need is not needed here, and takes seconds to import.
    monkeypatch.setattr(run_module_tests, "IMPORTED_ONCE", ["pytest"])
    crash = tmp_path / "test_crash.py"
    crash.write_text("import os\ndef test(): os.abort()\n")
    fine = tmp_path / "test_fine.py"
    fine.write_text("def test(): pass\n")
    outcomes = [run_module_tests.run_file(path, ["-q"]) for path in (crash, fine)]
    assert [one.passed for one in outcomes] == [False, True]
    assert "crashed" in str(outcomes[0]) or sys.platform == "win32"


def test_plain_pytest_leaves_the_folder_out() -> None:
    # The others' tests would import all that the library stands on.
    others = ["--ignore=Testing/library", "--ignore=Testing/project"]
    command = [sys.executable, "-m", "pytest", "Testing", "--collect-only", "-q", *others]
    listed = subprocess.run(
        command, cwd=run_module_tests.REPOSITORY, capture_output=True, text=True, check=False
    )
    assert listed.returncode == run_module_tests.NOTHING_TO_RUN
    assert "Testing/module" not in listed.stdout
