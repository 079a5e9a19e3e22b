"""Volumes, segmentations, transforms for the module's tests, and where their voxels lie."""

from __future__ import annotations

import numpy as np


def rotation(axis, degrees: float) -> np.ndarray:
    import slicer
    import vtk

    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return np.array(slicer.util.arrayFromVTKMatrix(transform.GetMatrix()))


def placement(
    spacing=(1.0, 1.0, 1.0), axis=(0, 0, 1), degrees: float = 0.0, origin=(0.0, 0.0, 0.0)
) -> np.ndarray:
    matrix = rotation(axis, degrees) @ np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return matrix


def add_volume(array: np.ndarray, ijk_to_ras: np.ndarray, name: str = "CT"):
    import slicer

    node = slicer.util.addVolumeFromArray(array, name=name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    return node


def add_segmentation(volume, segments: dict[str, np.ndarray], name: str = "Labels"):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    for number, (segment, mask) in enumerate(segments.items()):
        colour = [0.2 + 0.1 * number, 0.5, 0.3]
        segment_id = node.GetSegmentation().AddEmptySegment("", segment, colour)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), node, segment_id, volume
        )
    return node


def add_transform(matrix: np.ndarray, *nodes):
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def box(shape, k, j, i) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slice(*k), slice(*j), slice(*i)] = True
    return mask


def world_points(mask: np.ndarray, ijk_to_ras: np.ndarray) -> np.ndarray:
    """RAS of the voxels of a mask (k, j, i), sorted."""
    indices = np.argwhere(mask)[:, ::-1]
    points = (ijk_to_ras @ np.c_[indices, np.ones(len(indices))].T)[:3].T
    return sorted_points(points)


def sorted_points(points: np.ndarray) -> np.ndarray:
    rounded = np.round(points, 3) + 0.0
    return rounded[np.lexsort(rounded.T)]


def file_points(labelmap, value: int) -> np.ndarray:
    """RAS of the voxels of a label in what the library read from a file."""
    geometry = labelmap.geometry
    direction = np.asarray(geometry.direction).reshape(3, 3)
    lps = np.eye(4)
    lps[:3, :3] = direction * np.asarray(geometry.spacing)
    lps[:3, 3] = geometry.origin
    return world_points(labelmap.array == value, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)


def segment_points(segmentation, name: str) -> np.ndarray:
    """RAS of the voxels of a segment, from its own labelmap and transform."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    segment = segmentation.GetSegmentation().GetSegment(
        segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    )
    image = segment.GetRepresentation("Binary labelmap")
    extent = image.GetExtent()
    shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    offset = np.eye(4)
    offset[:3, 3] = extent[0], extent[2], extent[4]
    to_world = vtk.vtkMatrix4x4()
    if segmentation.GetParentTransformNode():
        segmentation.GetParentTransformNode().GetMatrixTransformToWorld(to_world)
    to_ras = [np.array(slicer.util.arrayFromVTKMatrix(each)) for each in (to_world, matrix)]
    return world_points(labels == segment.GetLabelValue(), to_ras[0] @ to_ras[1] @ offset)
