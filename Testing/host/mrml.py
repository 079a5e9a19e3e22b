"""The real MRML scene and module logics of slicer-core, set up as the application does it.

The order matters: colours and the representation converters that the segmentations logic
registers must be there before any volume or segment is made.
"""

from __future__ import annotations

import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from .segmentations_plugin import watch_segmentations
from .subject_hierarchy import watch_removals

_SHARE = Path(__file__).parent / "share"
_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    # Takes display and storage nodes out of the scene with the node that alone refers to them.
    "Data": "vtkSlicerDataModuleLogic",
}


class CoreModule:
    """What `slicer.modules.volumes` and the like are asked for."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self.title = name
        self.path = ""
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


@dataclass
class MRML:
    """The scene's application logic, and what must live as long as it."""

    application_logic: Any
    kept: list[Any]


def set_up_scene() -> MRML:
    """Makes `slicer.mrmlScene`, `slicer.modules` and `slicer.moduleNames`."""
    _name_modules()
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    for kind in ("ThreeD", "Slice"):
        factory = getattr(slicer, f"vtkMRML{kind}ViewDisplayableManagerFactory").GetInstance()
        factory.SetMRMLApplicationLogic(logic)
    _add_colours(logic, scene)
    for name, class_name in _LOGICS.items():
        _add_module(name, getattr(slicer, class_name)(), logic, scene)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    watch_segmentations(scene)
    watch_removals(scene)
    return MRML(logic, _make_bundles_readable(logic, scene))


def _name_modules() -> None:
    for name in ("modules", "moduleNames"):
        module = types.ModuleType(f"slicer.{name}")
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


def register_module(name: str, module: Any) -> None:
    """Makes a module known as `slicer.modules.<lower case name>`."""
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)


def _add_colours(application_logic: Any, scene: Any) -> None:
    logic = slicer.vtkMRMLColorLogic()
    logic.SetMRMLScene(scene)
    logic.SetMRMLApplicationLogic(application_logic)
    logic.AddDefaultColorNodes()
    application_logic.SetModuleLogic("Colors", logic)
    register_module("Colors", CoreModule("Colors", logic))


def _add_module(name: str, logic: Any, application_logic: Any, scene: Any) -> None:
    if hasattr(logic, "SetModuleShareDirectory"):
        logic.SetModuleShareDirectory(str(_SHARE / name))
    logic.SetMRMLApplicationLogic(application_logic)
    logic.SetMRMLScene(scene)
    application_logic.SetModuleLogic(name, logic)
    register_module(name, CoreModule(name, logic))


def _make_bundles_readable(application_logic: Any, scene: Any) -> list[Any]:
    """A scene reads a .mrb only with the parts that could fetch its files from elsewhere."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application_logic)
    cache = tempfile.TemporaryDirectory(prefix="slicer_cache_")
    remote.GetCacheManager().SetRemoteCacheDirectory(cache.name)
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLScene(scene)
    manager.SetMRMLApplicationLogic(application_logic)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return [remote, manager, cache]
