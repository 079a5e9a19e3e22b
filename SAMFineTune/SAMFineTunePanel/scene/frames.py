"""One item of a sequence, used as the node that shows it: what a browser shows meanwhile is of no account."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from SAMFineTunePanel.scene.sequences import NodeSequence, isShownBeside, sequenceOf
from SAMFineTunePanel.scene.voxel_grid import worldTransform


class Frame:
    """An item of a sequence under the transform of its proxy; answers what is asked of a node in this module.

    Args:
        sequence: the sequence and its proxy.
        indexValue: of the item.

    Attributes:
        sequence, indexValue: as given.
        node: the item, a node in the sequence's own scene.

    Raises:
        ValueError: the item is not there any more, in words.
    """

    def __init__(self, sequence: NodeSequence, indexValue: str) -> None:
        self.sequence, self.indexValue = sequence, indexValue
        number = sequence.numberOf(indexValue)
        node = sequence.sequence.GetNthDataNode(number) if number >= 0 else None
        if node is None:
            raise ValueError(
                _("The frame of {name} that was chosen has been removed from its sequence.").format(
                    name=sequence.proxy.GetName()
                )
            )
        self.node = node

    def GetID(self) -> str:
        """Tells it from other frames and from all nodes of the scene."""
        return f"{self.sequence.sequence.GetID()} {self.indexValue}"

    def GetName(self) -> str:
        """As the user knows it: the proxy and the number."""
        return _("{name} frame {number}").format(
            name=self.sequence.proxy.GetName(), number=self.sequence.numberOf(self.indexValue) + 1
        )

    def GetClassName(self) -> str:
        """That of the item."""
        return str(self.node.GetClassName())

    def GetTransformNodeID(self) -> str | None:
        """As of `GetParentTransformNode`."""
        return self.sequence.proxy.GetTransformNodeID()

    def GetParentTransformNode(self) -> slicer.vtkMRMLTransformNode | None:
        """That of the proxy, under which every item is shown."""
        return self.sequence.proxy.GetParentTransformNode()


class VolumeFrame(Frame):
    """An item of a sequence of volumes."""

    def GetImageData(self) -> Any:
        """The voxels."""
        return self.node.GetImageData()

    def GetIJKToRASMatrix(self, matrix: Any) -> None:
        """Write the item's own geometry into a 4 × 4 matrix."""
        self.node.GetIJKToRASMatrix(matrix)


class SegmentationFrame(Frame):
    """An item of a sequence of segmentations."""

    def GetSegmentation(self) -> slicer.vtkSegmentation:
        """The segments."""
        return self.node.GetSegmentation()


def frameOf(node: slicer.vtkMRMLScalarVolumeNode, indexValue: str = "") -> Any:
    """A volume at an item of its sequence; the node itself where it shows no sequence.

    Args:
        node: of the scene.
        indexValue: of the item; "" for the one that is shown at present.

    Raises:
        ValueError: the volume is no longer, or the item is not, part of a sequence.
    """
    sequence = sequenceOf(node)
    if sequence is None:
        if indexValue:
            raise ValueError(_("{name} no longer shows a sequence; choose its frame anew.").format(name=node.GetName()))
        return node
    indexValue = indexValue or sequence.shown
    return VolumeFrame(sequence, indexValue) if indexValue else node


def besideFrame(node: Any, frame: Any, kind: type[Frame]) -> Any:
    """A node at the same item as a frame, where one browser shows both; else the node itself.

    Raises:
        ValueError: its sequence has no item at all for that.
    """
    sequence = sequenceOf(node) if isinstance(frame, Frame) else None
    if sequence is None or not isShownBeside(node, frame.sequence):
        return node
    number = sequence.numberNearest(frame.indexValue)
    return kind(sequence, sequence.sequence.GetNthIndexValue(number))


def nodeInScene(node: Any) -> Any:
    """The node that shows a frame; any other node is its own."""
    return node.sequence.proxy if isinstance(node, Frame) else node


def requirePresent(node: Any) -> None:
    """Refuse a node, or a frame, that was taken away while it was worked on.

    Raises:
        ValueError: in words.
    """
    own = nodeInScene(node)
    if not slicer.mrmlScene.IsNodePresent(own):
        raise ValueError(
            _("{name} was removed from the scene while it was being segmented.").format(name=own.GetName())
        )
    if isinstance(node, Frame):
        sequence = sequenceOf(own)
        if (
            sequence is None
            or sequence.sequence is not node.sequence.sequence
            or sequence.numberOf(node.indexValue) < 0
        ):
            raise ValueError(
                _("The sequence of {name} was removed or changed while it was being segmented.").format(
                    name=own.GetName()
                )
            )


def nodeForSlicer(node: Any) -> Any:
    """What Slicer's own code, which takes nodes only, is given for a frame.

    Raises:
        ValueError: the item lies under a transform, which is that of another node.
    """
    if not isinstance(node, Frame):
        return node
    if isinstance(node, VolumeFrame):
        # A node of its own outside of any scene, which lies in the world.
        matrix = slicer.util.vtkMatrixFromArray(worldTransform(node) @ _ijkToRas(node))
        own = slicer.vtkMRMLScalarVolumeNode()
        own.SetAndObserveImageData(node.GetImageData())
        own.SetIJKToRASMatrix(matrix)
        return own
    if node.GetParentTransformNode() is not None:
        raise ValueError(
            _("{name} lies under a transform and on another grid than its volume. Harden the transform first.").format(
                name=node.GetName()
            )
        )
    return node.node


def _ijkToRas(frame: VolumeFrame) -> Any:
    matrix = vtk.vtkMatrix4x4()
    frame.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
