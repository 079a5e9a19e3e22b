"""The module in a Slicer to which nothing was added: none of our packages is installed."""

from __future__ import annotations

from Testing.support.own_process import run_script

BARE_SLICER = """
import importlib.metadata, sys

ABSENT = {"torch", "monai", "pydantic", "pydantic_core", "psutil", "safetensors", "pooch",
          "platformdirs", "tqdm", "segment_anything", "mobile_sam", "SimpleITK", "scipy",
          "matplotlib", "requests", "nilearn"}


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


real_version = importlib.metadata.version


def version(name, real=real_version):
    if name.replace("-", "_") in ABSENT | {"mobilesam_mirror", "simpleitk"}:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)


from Testing.host import boot, errors, load_module
slicer = boot()
sys.meta_path.insert(0, Absent)
for name in [name for name in sys.modules if name.split(".")[0] in ABSENT]:
    del sys.modules[name]
importlib.metadata.version = version
container = load_module(sys.argv[1])
slicer.app.startupCompleted.emit()
"""

OPEN_THE_PANEL = """
widget = container.widgetRepresentation()
widget.show()
widget.enter()
slicer.app.processEvents()
panel = widget.self().panel
packages = panel.packages.ui
print("errors", errors)
print("loaded", sorted(ABSENT & set(sys.modules)))
print("table", packages.packagesTable.rowCount, packages.collapsibleButton.collapsed,
      panel.packages.widget.visible)
print("locked", [section.ui.collapsibleButton.enabled for section in panel._working])
slicer.mrmlScene.Clear(0)
widget.exit()
slicer.app.aboutToQuit.emit()
print("end", errors)
"""

ACTIVATE_THE_EFFECT = """
import time
import numpy as np
import vtk
from unittest import mock

sys.path.insert(0, "Testing/module")
from Testing.support.correction_workers import FAKE
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement
from Testing.support.scripted_effect import View, effect_base, make_effect

shape = (6, 14, 16)
volume = add_volume(np.zeros(shape, np.int16), placement())
segmentation = add_segmentation(volume, {"liver": box(shape, (1, 5), (2, 8), (3, 9))})
editor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
editor.SetAndObserveSourceVolumeNode(volume)
editor.SetAndObserveSegmentationNode(segmentation)
editor.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))
slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
slice_node.SetOrientation("Axial")
slice_node.SetSliceOffset(3.0)
slice_node.SetDimensions(200, 100, 1)
slice_node.SetFieldOfView(100, 50, 1)
slice_node.UpdateMatrices()
interactor = vtk.vtkRenderWindowInteractor()
interactor.SetEventInformation(84, 64, 0, 0)
sys.modules["SegmentEditorEffects"] = effect_base()
effect = make_effect(editor)
effect.scriptedEffect.setParameter("Model", "tuned before")


def click():
    press = vtk.vtkCommand.LeftButtonPressEvent
    return effect.processInteractionEvents(interactor, press, View(slice_node))


options = effect._options
options.widget.show()
effect.activate()
print("problem", options.problemLabel.text)
print("refused", click(), options.moduleButton.visible, options.acceptButton.enabled)
with mock.patch("slicer.util.selectModule") as select:
    options.moduleButton.click()
print("opened", *select.call_args.args)
print("remembered", effect.scriptedEffect.parameter("Model"))
effect.deactivate()
print("errors", errors)

# The packages are installed.
sys.meta_path.remove(Absent)
importlib.metadata.version = real_version
from SAMFineTuneLib.interactive import client
client.serve_command = lambda folder, python: [sys.executable, str(FAKE), "well", str(folder)]
effect.activate()
correction = effect._editorCorrection.correction
end = time.monotonic() + 30
while correction.session.state != "ready" and time.monotonic() < end:
    slicer.app.processEvents()
print("ready", correction.session.state, options.problemLabel.text, options.moduleButton.visible)
print("taken", click(), len(correction.session.current.prompts))
effect.deactivate()
effect.cleanup()
slicer.app.aboutToQuit.emit()
print("end", errors)
"""


def said(script: str) -> dict[str, str]:
    """What a script prints in a bare Slicer: first word of a line → the others."""
    lines = run_script(BARE_SLICER + script).splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_it_loads_and_shows_what_is_missing():
    words = said(OPEN_THE_PANEL)
    assert words["errors"] == "[]" and words["end"] == "[]"
    assert words["loaded"] == "[]"
    rows, collapsed, visible = words["table"].split()
    assert int(rows) >= 10 and (collapsed, visible) == ("False", "True")
    assert words["locked"] == "[False, False, False, False, False, False]"


def test_the_effect_says_what_to_install_and_works_afterwards_without_a_restart():
    words = said(ACTIVATE_THE_EFFECT)
    assert "install" in words["problem"].lower() and "SAM FineTune" in words["problem"]
    assert words["refused"] == "False True False" and words["opened"] == "SAMFineTune"
    assert words["remembered"] == "tuned before"
    assert words["errors"] == "[]" and words["end"] == "[]"
    assert words["ready"].split() == ["ready", "False"] and words["taken"] == "True 1"
