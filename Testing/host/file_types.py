"""`slicer.app.coreIOManager()`: files to nodes and back, by the real storage nodes and logics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

_BY_ENDING = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".mha": "VolumeFile",
    ".stl": "ModelFile",
    ".vtk": "ModelFile",
    ".tfm": "TransformFile",
    ".h5": "TransformFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
}
_BY_STORAGE = {
    "ModelFile": ("vtkMRMLModelNode", "vtkMRMLModelStorageNode"),
    "TransformFile": ("vtkMRMLLinearTransformNode", "vtkMRMLTransformStorageNode"),
    "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    "TextFile": ("vtkMRMLTextNode", "vtkMRMLTextStorageNode"),
}


class CoreIOManager:
    """What `slicer.util.loadVolume`, `saveNode`, `saveScene` … call."""

    def fileType(self, path: str) -> str:
        name = Path(path).name.lower()
        return next((kind for end, kind in _BY_ENDING.items() if name.endswith(end)), "NoFile")

    def loadNodes(self, kind: str, properties: dict[str, Any], nodes: Any, messages: Any) -> bool:
        path = properties["fileName"]
        if not Path(path).is_file():
            _complain(messages, f"File not found: {path}")
            return False
        if kind == "SceneFile":
            return _load_scene(path, bool(properties.get("clear")))
        node = _LOADERS.get(kind, _load_by_storage)(kind, path, properties, messages)
        if node is not None:
            nodes.AddItem(node)
        return node is not None

    def fileWriterFileType(self, node: Any) -> str:
        return str(node.GetClassName())

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any) -> bool:
        path = properties["fileName"]
        if kind == "SceneFile":
            return _save_scene(str(path))
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        storage.SetUseCompression(int(properties.get("useCompression", 1)))
        return bool(storage.WriteData(node))


def _complain(messages: Any, text: str) -> None:
    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)


def _name(path: str, properties: dict[str, Any]) -> str:
    return str(properties.get("name") or Path(path).name.split(".")[0])


def _load_scene(path: str, clear: bool) -> bool:
    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return bool(scene.ReadFromMRB(path, clear))
    scene.SetURL(path)
    return bool(scene.Connect() if clear else scene.Import())


def _save_scene(path: str) -> bool:
    scene = slicer.mrmlScene
    scene.SetURL(path)
    scene.SetRootDirectory(str(Path(path).parent))
    return bool(scene.WriteToMRB(path) if path.endswith(".mrb") else scene.Commit(path))


def _load_volume(kind: str, path: str, properties: dict[str, Any], messages: Any) -> Any:
    logic = slicer.modules.volumes.logic()
    options = int(bool(properties.get("labelmap")))
    node = logic.AddArchetypeVolume(path, _name(path, properties), options)
    if node is not None and properties.get("show", True):
        application_logic = slicer.app.applicationLogic()
        application_logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
        application_logic.PropagateVolumeSelection()
    return node


def _load_segmentation(kind: str, path: str, properties: dict[str, Any], messages: Any) -> Any:
    logic = slicer.modules.segmentations.logic()
    return logic.LoadSegmentationFromFile(path, True, properties.get("name") or "")


def _load_markups(kind: str, path: str, properties: dict[str, Any], messages: Any) -> Any:
    node_id = slicer.modules.markups.logic().LoadMarkups(path, _name(path, properties), messages)
    return slicer.mrmlScene.GetNodeByID(node_id) if node_id else None


def _load_by_storage(kind: str, path: str, properties: dict[str, Any], messages: Any) -> Any:
    if kind not in _BY_STORAGE:
        _complain(messages, f"No reader for {path}")
        return None
    scene = slicer.mrmlScene
    node_class, storage_class = _BY_STORAGE[kind]
    node = scene.AddNewNodeByClass(node_class, _name(path, properties))
    storage = scene.AddNewNodeByClass(storage_class)
    storage.SetFileName(path)
    if not storage.ReadData(node):
        scene.RemoveNode(node)
        scene.RemoveNode(storage)
        return None
    node.SetAndObserveStorageNodeID(storage.GetID())
    if hasattr(node, "CreateDefaultDisplayNodes"):
        node.CreateDefaultDisplayNodes()
    return node


_LOADERS = {
    "VolumeFile": _load_volume,
    "SegmentationFile": _load_segmentation,
    "MarkupsFile": _load_markups,
}
