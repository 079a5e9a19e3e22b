"""Sequences of volumes: what the library writes Slicer reads, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    read_labelmap,
    read_time,
    read_volume,
    write_frames,
)
from SAMFineTuneLib.volumes.frames import TimeAxis
from Testing.support.volume_geometries import LIVER, OBLIQUE, random_labelmap

FRAMES = 3
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


def storage(scene, path: Path):
    node = slicer.vtkMRMLVolumeSequenceStorageNode()
    scene.AddNode(node)
    node.SetFileName(str(path))
    return node


def array(volume) -> np.ndarray:
    image = volume.GetImageData()
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    shape = image.GetDimensions()[::-1]
    return values.reshape(shape if values.ndim == 1 else (*shape, values.shape[1]))


def ijkToRAS(volume) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def volumeOf(scene, values: np.ndarray, geometry: Geometry, kind: str):
    node = scene.AddNewNodeByClass(kind)
    image = vtk.vtkImageData()
    image.SetDimensions(geometry.size)
    components = values.reshape(-1, values.shape[3]) if values.ndim == 4 else values.ravel()
    scalars = numpy_to_vtk(np.ascontiguousarray(components), deep=True)
    image.GetPointData().SetScalars(scalars)
    node.SetAndObserveImageData(image)
    matrix = vtk.vtkMatrix4x4()
    for row, numbers in enumerate(RAS @ geometry.affine):
        for column, number in enumerate(numbers):
            matrix.SetElement(row, column, number)
    node.SetIJKToRASMatrix(matrix)
    return node


def test_slicer_reads_what_the_library_writes(scene, tmp_path):
    frames = [random_labelmap(OBLIQUE, seed) for seed in range(FRAMES)]
    names = {1: "liver", 2: "spleen", 3: "cyst"}
    first = Labelmap(frames[0].array, OBLIQUE, names, terminologies={1: LIVER})
    path = tmp_path / "film.seq.nrrd"
    write_frames(path, [first, *frames[1:]], TimeAxis(FRAMES, 0.04))
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    assert storage(scene, path).ReadData(sequence)
    assert sequence.GetNumberOfDataNodes() == FRAMES
    assert (sequence.GetIndexName(), sequence.GetIndexUnit()) == ("time", "s")
    assert [sequence.GetNthIndexValue(n) for n in range(FRAMES)] == ["0", "0.04", "0.08"]
    for number, frame in enumerate(frames):
        volume = sequence.GetNthDataNode(number)
        assert volume.IsA("vtkMRMLLabelMapVolumeNode")
        np.testing.assert_array_equal(array(volume), frame.array)
        np.testing.assert_allclose(ijkToRAS(volume), RAS @ OBLIQUE.affine, atol=1e-9)

    # Saved again by Slicer, it is read with the names of its segments.
    assert storage(scene, tmp_path / "again.seq.nrrd").WriteData(sequence)
    assert read_time(tmp_path / "again.seq.nrrd").values == ("0", "0.04", "0.08")
    for number, frame in enumerate(frames):
        back = read_labelmap(tmp_path / "again.seq.nrrd", frame=number)
        np.testing.assert_array_equal(back.array, frame.array)
        assert back.geometry.same_as(OBLIQUE)
        assert back.names == first.names and back.terminologies == first.terminologies


@pytest.mark.parametrize(
    ("kind", "colours"),
    [("vtkMRMLScalarVolumeNode", 0), ("vtkMRMLVectorVolumeNode", 3)],
)
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_the_library_reads_what_slicer_writes(scene, tmp_path, kind, colours, frames):
    shape = (frames, *OBLIQUE.shape, *([colours] if colours else []))
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number, frame in enumerate(values):
        node = volumeOf(scene, frame, OBLIQUE, kind)
        sequence.SetDataNodeAtValue(node, f"{0.5 * number}")
    path = tmp_path / "film.seq.nrrd"
    assert storage(scene, path).WriteData(sequence)
    assert (read_time(path).frames, read_time(path).step) == (frames, 0.5)
    for number in range(frames):
        volume = read_volume(path, frame=number)
        np.testing.assert_array_equal(volume.array, values[number])
        assert volume.is_colour == bool(colours) and volume.geometry.same_as(OBLIQUE)
