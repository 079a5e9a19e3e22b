"""The module in a Slicer to which nothing was added: none of our packages is installed."""

from __future__ import annotations

from own_process import run_script

OPEN_THE_PANEL = """
import importlib.metadata, sys

ABSENT = {"torch", "monai", "pydantic", "pydantic_core", "psutil", "safetensors", "pooch",
          "platformdirs", "tqdm", "segment_anything", "mobile_sam", "SimpleITK", "scipy",
          "matplotlib", "requests", "nilearn"}


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def version(name, real=importlib.metadata.version):
    if name.replace("-", "_") in ABSENT | {"mobilesam_mirror", "simpleitk"}:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)


from Testing.slicer_host import boot, errors, load_module
slicer = boot()
sys.meta_path.insert(0, Absent)
for name in [name for name in sys.modules if name.split(".")[0] in ABSENT]:
    del sys.modules[name]
importlib.metadata.version = version
container = load_module(sys.argv[1])
slicer.app.startupCompleted.emit()
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


def test_it_loads_and_shows_what_is_missing():
    printed = run_script(OPEN_THE_PANEL)
    said = dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)
    assert said["errors"] == "[]" and said["end"] == "[]"
    assert said["loaded"] == "[]"
    rows, collapsed, visible = said["table"].split()
    assert int(rows) >= 10 and (collapsed, visible) == ("False", "True")
    assert said["locked"] == "[False, False, False, False, False, False]"
