"""An example of a sequence, at the frame on which it was labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from SAMFineTunePanel.scene.frames import Frame, SegmentationFrame, VolumeFrame, besideFrame, frameOf
from SAMFineTunePanel.scene.sequences import isShownBeside, sequenceOf

if TYPE_CHECKING:
    from SAMFineTunePanel.parameter_node import Example


class ExampleAtFrame:
    """An example whose nodes are those of its frame; all else is the example's.

    The labels are those of the frame where a browser shows segmentation and volume together. A segmentation that
    is no sequence holds the labels of the frame that the example names.

    Args:
        example: as in the parameter node.

    Attributes:
        volume, segmentation, channels: at the frame.

    Raises:
        ValueError: the frame is not there any more, in words.
    """

    def __init__(self, example: Example) -> None:
        self._example = example
        self.volume = frameOf(example.volume, example.frame)
        self.segmentation = besideFrame(example.segmentation, self.volume, SegmentationFrame)
        self.channels = [besideFrame(each, self.volume, VolumeFrame) for each in example.channels]

    @property
    def group(self) -> str:
        """The same for all frames of a sequence, which are of one patient; "" for a volume on its own."""
        return str(self.volume.sequence.sequence.GetID()) if isinstance(self.volume, Frame) else ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._example, name)


def holdsFrameInView(example: Example) -> bool:
    """Whether the labels of an example are those of the frame that its volume shows at present.

    A segmentation that no browser plays with the volume holds the labels of one frame, whichever is shown.
    """
    sequence = sequenceOf(example.volume)
    if sequence is None or not isShownBeside(example.segmentation, sequence):
        return True
    return (example.frame or sequence.shown) == sequence.shown


def sharedLabels(examples: Sequence[Example]) -> str:
    """That labels count on several frames, in words; "" where each frame has labels of its own."""
    frames: dict[tuple[str, str], str] = {}
    for each in examples:
        sequence = sequenceOf(each.volume)
        if sequence is None or each.segmentation is None or isShownBeside(each.segmentation, sequence):
            continue
        frame = each.frame or sequence.shown
        first = frames.setdefault((each.volume.GetID(), each.segmentation.GetID()), frame)
        if first != frame:
            return _(
                "What is drawn in {name} counts on frame {first} and on frame {second}. Draw the labels of each frame "
                "in a segmentation of its own."
            ).format(
                name=each.segmentation.GetName(),
                first=sequence.numberOf(first) + 1,
                second=sequence.numberOf(frame) + 1,
            )
    return ""


def atItsFrame(example: Any) -> Any:
    """An example at its frame; an example of a volume that shows no sequence as it is.

    Raises:
        ValueError: the frame is not there any more, in words.
    """
    if isinstance(example, ExampleAtFrame) or example.volume is None or example.segmentation is None:
        return example
    found = ExampleAtFrame(example)
    return found if isinstance(found.volume, Frame) else example
