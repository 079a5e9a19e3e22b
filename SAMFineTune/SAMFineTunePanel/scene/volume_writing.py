"""A volume node to a file, where it lies in the world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import slicer

from SAMFineTunePanel.scene import raw_nrrd
from SAMFineTunePanel.scene.voxel_grid import VoxelGrid, gridOf


def isOn(volumeNode: slicer.vtkMRMLScalarVolumeNode, grid: VoxelGrid) -> bool:
    """Whether a volume still lies where it was written; events go on while files are written."""
    now = gridOf(volumeNode)
    return now.size == grid.size and np.array_equal(now.ijkToRas, grid.ijkToRas)


def writeVolume(volumeNode: slicer.vtkMRMLScalarVolumeNode, path: Path) -> Iterator[None]:
    """Write a volume where it lies in the world; yields between pieces.

    Raises:
        ValueError: as `gridOf`.
        OSError: the file cannot be written.
    """
    grid = gridOf(volumeNode)
    # The array looks into the node's memory: the node must outlive the loop, the file need not wait.
    yield from raw_nrrd.write(path, slicer.util.arrayFromVolume(volumeNode), grid)
