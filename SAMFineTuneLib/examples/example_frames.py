"""Which frames of an example's files are read: of its volume, and of its segmentation."""

from __future__ import annotations

from typing import NamedTuple

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.example import Example
from SAMFineTuneLib.volumes import read_time, read_time_of_labels
from SAMFineTuneLib.volumes.frames import TimeAxis, require_frame


class ExampleFrame(NamedTuple):
    """One frame of an example; None for a file without an axis of time.

    Attributes:
        volume: the frame of the volume.
        segmentation: the frame of the segmentation.
    """

    volume: int | None = None
    segmentation: int | None = None


def frames_of(example: Example) -> list[ExampleFrame]:
    """The frames that an example is about: the chosen one, otherwise all that have labels.

    Only a segmentation with an axis of time of its own says something of more than one frame.

    Raises:
        InputError: a file cannot be read, as far as its header shows it; the volume has several
            frames, the segmentation one, and none is chosen; both have several, and not equally
            many; there is no such frame.
    """
    labels = read_time_of_labels(example.segmentation)
    volume = read_time(example.volume, example.series)
    if labels.frames == 1:
        if example.frame is None and volume.frames > 1:
            raise _of_which_frame(example, volume)
        chosen = require_frame(example.volume, volume, example.frame)
        return [ExampleFrame(chosen if volume.frames > 1 else None)]
    if labels.frames != volume.frames:
        raise InputError(
            f"'{example.segmentation}' has {labels.frames} frames, and its volume "
            f"'{example.volume}' has {_counted(volume.frames)}",
            "Give a segmentation of as many frames as the volume has, or of the one frame that it "
            "was drawn on",
            code="other_frames",
        )
    if example.frame is not None:
        number = require_frame(example.volume, volume, example.frame)
        return [ExampleFrame(number, number)]
    return [ExampleFrame(number, number) for number in range(volume.frames)]


def _of_which_frame(example: Example, volume: TimeAxis) -> InputError:
    last = volume.frames - 1
    return InputError(
        f"'{example.volume}' has {volume.frames} frames, and it is not said on which of them "
        f"'{example.segmentation}' was drawn",
        f"Choose the frame by its number, from 0 to {last}, or give a segmentation of as many "
        "frames",
        code="frame_not_chosen",
        last=last,
    )


def _counted(frames: int) -> str:
    return "one" if frames == 1 else str(frames)
