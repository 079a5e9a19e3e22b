"""The images of a job as files: each is written once, under a name that tells what it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Generator, Sequence
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.frames import nodeInScene
from SAMFineTunePanel.scene.volume_writing import isOn, writeVolume
from SAMFineTunePanel.scene.voxel_grid import VoxelGrid, gridOf

_LONGEST_NAME = 60


class ImageFiles:
    """Writes volume nodes into a folder.

    A volume on its own is `volume0.nrrd`. Of a case with several images the files have the names of the nodes, for
    a model calls the images that it learns from after their files; and where it is asked for, so that what the worker
    says of a file names the volume.

    Args:
        folder: of the files; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, tuple[Path, VoxelGrid]] = {}

    def steps(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        images: Sequence[slicer.vtkMRMLScalarVolumeNode] = (),
        named: bool = False,
    ) -> Generator[None, None, list[Path]]:
        """Writes the images of a case where they lie in the world; yields between pieces, returns their files.

        Args:
            volume: the first image.
            images: the further ones.
            named: whether a volume on its own has the name of its node, too.

        Raises:
            ValueError: as `gridOf`; or an image was moved or exchanged meanwhile.
            OSError: the folder cannot be written.
        """
        case = [volume, *images]
        for node in case:
            if node.GetID() not in self._written:
                path = self._pathOf(node, isNamed=named or bool(images))
                self._written[node.GetID()] = path, gridOf(node)
                yield from writeVolume(node, path)
        for node in case:
            requireUnmoved(node, self._written[node.GetID()][1])
        return [self._written[node.GetID()][0] for node in case]

    def _pathOf(self, node: slicer.vtkMRMLScalarVolumeNode, isNamed: bool) -> Path:
        number = len(self._written)
        if not isNamed:
            return self._folder / f"volume{number}.nrrd"
        folder = self._folder / f"image{number}"
        folder.mkdir()
        # The number of a frame is no part of what the image is.
        return folder / f"{fileName(nodeInScene(node).GetName())}.nrrd"


def requireUnmoved(volumeNode: slicer.vtkMRMLScalarVolumeNode, grid: VoxelGrid) -> None:
    """Refuse a volume that no longer lies where it was written; labels must not be on another grid than their image.

    Raises:
        ValueError: in words.
    """
    if not isOn(volumeNode, grid):
        raise ValueError(
            _("Volume {name} was moved or exchanged while it was being prepared. Start again.").format(
                name=volumeNode.GetName()
            )
        )


def fileName(name: str) -> str:
    """The name of a node as a name that a file can have everywhere: letters without accents, digits, - and _."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_-")[:_LONGEST_NAME] or "image"
