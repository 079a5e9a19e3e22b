"""The module's own test: fine-tune, apply, save and reopen on a volume made up for it.

It needs neither a network nor data, takes under a minute on two processors, and is the same in Slicer
(Reload and Test, ctest) and outside of it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

if TYPE_CHECKING:
    from SAMFineTune import SAMFineTuneLogic
    from SAMFineTuneLib.models.library import TunedModel

_SHAPE = (24, 64, 64)
_LABELLED = (6, 9, 12, 15, 18)
_STEPS = 2


def makeVolume() -> tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray]:
    """A bright ellipsoid in noise, oblique in the world; the volume and where the ellipsoid is (k, j, i)."""
    k, j, i = np.mgrid[: _SHAPE[0], : _SHAPE[1], : _SHAPE[2]]
    truth = ((k - 12) / 8.0) ** 2 + ((j - 30) / 18.0) ** 2 + ((i - 36) / 14.0) ** 2 < 1
    noise = np.random.default_rng(0).normal(100, 12, _SHAPE)
    volume = slicer.util.addVolumeFromArray((noise + 60 * truth).astype(np.int16), name="Phantom")
    turn = np.radians(20)
    directions = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = directions * [1.0, 1.0, 3.0]
    matrix[:3, 3] = [12.5, -40.0, 7.0]
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return volume, truth


def labelSlices(volume: slicer.vtkMRMLScalarVolumeNode, truth: np.ndarray) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation with the structure labelled on a few slices."""
    shown = np.zeros(_SHAPE, np.uint8)
    shown[list(_LABELLED)] = truth[list(_LABELLED)]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Labels")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentID = node.GetSegmentation().AddEmptySegment("", "ellipsoid", [0.9, 0.3, 0.2])
    slicer.util.updateSegmentBinaryLabelmapFromArray(shown, node, segmentID, volume)
    return node


class ModuleTest(ScriptedLoadableModuleTest):
    """Fine-tune, apply, save and reopen."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        from SAMFineTune import SAMFineTuneLogic
        from SAMFineTunePanel.worker.python_packages import missingPackages

        missing = missingPackages()
        if missing:
            # A Slicer that builds and tests extensions has none of them, and nothing is installed unasked.
            print("Not tested, for want of " + ", ".join(each.name for each in missing))
            return
        self.setUp()

        logic = SAMFineTuneLogic()
        try:
            volume, truth = makeVolume()
            labels = labelSlices(volume, truth)
            model = self._fineTune(logic, volume, labels)
            try:
                segmentation = self._apply(logic, model, volume, truth)
                self._saveAndReopen(logic, volume, labels, segmentation)
            finally:
                logic.deleteModel(model)
        finally:
            logic.cleanup()

    def _fineTune(
        self, logic: SAMFineTuneLogic, volume: slicer.vtkMRMLScalarVolumeNode, labels: slicer.vtkMRMLSegmentationNode
    ) -> TunedModel:
        logic.addExample(volume, labels)
        example = logic.getParameterNode().examples[0]
        self.assertEqual(logic.exampleSlices(example).labelled, list(_LABELLED))
        heard: list[int] = []
        model = logic.fineTune(
            volume, labels, steps=_STEPS, inputSize=256, name="module test", progress=lambda job: heard.append(job.step)
        )
        self.assertTrue(heard)
        self.assertEqual([label.name for label in model.card.labels], ["ellipsoid"])
        return model

    def _apply(
        self, logic: SAMFineTuneLogic, model: TunedModel, volume: slicer.vtkMRMLScalarVolumeNode, truth: np.ndarray
    ) -> slicer.vtkMRMLSegmentationNode:
        segmentation = logic.apply(model, volume)
        segmentID = segmentation.GetSegmentation().GetSegmentIdBySegmentName("ellipsoid")
        found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentID, volume) > 0
        overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        self.assertGreater(overlap, 0.8)
        return segmentation

    def _saveAndReopen(
        self,
        logic: SAMFineTuneLogic,
        volume: slicer.vtkMRMLScalarVolumeNode,
        labels: slicer.vtkMRMLSegmentationNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
    ) -> None:
        before = _voxels(segmentation, volume)
        names = [node.GetName() for node in (volume, labels, segmentation)]
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "scene.mrb"))
            self.assertTrue(slicer.util.saveScene(file))
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(file)
        volume, labels, segmentation = (slicer.util.getNode(name) for name in names)
        np.testing.assert_array_equal(_voxels(segmentation, volume), before)
        example = logic.getParameterNode().examples[0]
        self.assertEqual((example.volume, example.segmentation), (volume, labels))
        self.assertEqual(logic.exampleSlices(example).labelled, list(_LABELLED))


def _voxels(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    segmentID = segmentation.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentID, volume)
