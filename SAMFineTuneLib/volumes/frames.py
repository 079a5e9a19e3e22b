"""Images with an axis of time: how many frames a file has, and which one is read.

A frame is an ordinary 3-D image; frames are numbered from 0. The axis of time is the fourth one of
NIfTI and MetaImage. NRRD has it as the fourth axis or, as 3D Slicer writes sequences of volumes, as
an axis of the kind "list", which stands before or behind the axes of space. In DICOM it is made of
slices that lie at one place (`dicom.time_points`).

Frames of 2-D images are no frames in this sense: as in ITK and 3D Slicer, the pages of a TIFF file
and the frames of an ultrasound film are the slices of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.geometry.nifti_forms import read_forms, read_time_step

_SEQUENCE_ENDINGS = (".seq.nrrd", ".seq.nhdr")
# Numbers of values a voxel that colours have.
_COLOURS = (3, 4)
_INDEX_TYPE = "axis {} index type"
_INDEX_VALUES = "axis {} index values"


@dataclass(frozen=True)
class TimeAxis:
    """The axis of time of an image.

    Attributes:
        frames: number of frames; 1 for a 3-D image.
        step: time from one frame to the next, in seconds where the file says so; 0 if it is not
            told.
        values: the value of each frame on a sequence's index axis, as 3D Slicer writes them; empty
            for other files.
        name: the name of this index, such as "time" or "frame".
        unit: the unit of this index.
        along_components: whether the file has the axis in place of several values a voxel.
    """

    frames: int
    step: float = 0.0
    values: tuple[str, ...] = ()
    name: str = ""
    unit: str = ""
    along_components: bool = False


ONE_FRAME = TimeAxis(1)


def time_axis(path: Path, reader: sitk.ImageFileReader, header: Mapping[str, str]) -> TimeAxis:
    """The axis of time by a header that has been read.

    Args:
        path: the file.
        reader: after it has read the header.
        header: the fields of the header.
    """
    size = reader.GetSize()
    components = reader.GetNumberOfComponents()
    sequence = _is_sequence(path, header, components)
    if len(size) == 3 and components > 1 and sequence:
        return TimeAxis(components, *_index(header), along_components=True)
    layered = not sequence and _has_segments(header)
    if len(size) < 4 or size[3] == 1 or math.prod(size[4:]) > 1 or layered:
        return ONE_FRAME
    if sequence:
        return TimeAxis(size[3], *_index(header))
    if read_forms(path) is not None:
        return TimeAxis(size[3], read_time_step(path))
    return TimeAxis(size[3], float(reader.GetSpacing()[3]))


def _is_sequence(path: Path, header: Mapping[str, str], components: int) -> bool:
    """Whether a file with several values a voxel, or a fourth axis, is a sequence of 3D Slicer.

    Other files have colours, vectors or the layers of a segmentation there. Sequences have a field
    for the type of their index. Without it the name tells, or an axis of the kind "list", unless
    its length is that of colours: programs that write NRRD call those a list as well.
    """
    if any(_INDEX_TYPE.format(axis) in header for axis in range(5)):
        return True
    if _has_segments(header):
        return False
    kinds = [value for key, value in header.items() if key.startswith("NRRD_kinds[")]
    listed = "list" in kinds and components not in _COLOURS
    return listed or path.name.lower().endswith(_SEQUENCE_ENDINGS)


def _has_segments(header: Mapping[str, str]) -> bool:
    return any(key.startswith("Segment0_") for key in header)


def require_frame(path: Path, axis: TimeAxis, frame: int | None) -> int:
    """The frame to read of a file.

    Args:
        path: the file, for messages.
        axis: its axis of time.
        frame: the number that was asked for; None is the only frame.

    Raises:
        InputError: none was asked for and there are several, or there is no such frame.
    """
    last = axis.frames - 1
    if frame is None:
        if last == 0:
            return 0
        raise InputError(
            f"'{path}' is 4-D, an image with an axis of time: it has {axis.frames} frames, and one "
            "of them is needed",
            f"Choose a frame by its number, from 0 to {last}",
            code="frame_not_chosen",
            last=last,
        )
    if 0 <= frame <= last:
        return frame
    if last == 0:
        raise InputError(
            f"there is no frame {frame} in '{path}', which has one frame",
            "Leave out the frame, or choose frame 0",
            code="no_such_frame",
            last=last,
        )
    raise InputError(
        f"there is no frame {frame} in '{path}', which has {axis.frames} frames",
        f"Choose a frame by its number, from 0 to {last}",
        code="no_such_frame",
        last=last,
    )


def _index(header: Mapping[str, str]) -> tuple[float, tuple[str, ...], str, str]:
    """Step, values, name and unit of a sequence's index."""
    axis = next((axis for axis in range(5) if _INDEX_VALUES.format(axis) in header), 3)
    values = tuple(header.get(_INDEX_VALUES.format(axis), "").split())
    name, unit = (
        next(
            (
                header[key]
                for key in (f"NRRD_{what}[pixel]", f"NRRD_{what}[{axis}]")
                if header.get(key)
            ),
            "",
        )
        for what in ("labels", "units")
    )
    return _step(values, unit), values, name, unit


def _step(values: tuple[str, ...], unit: str) -> float:
    """The time between frames in seconds, if the index is a time with even steps; else 0."""
    seconds = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3}.get(unit.strip().lower())
    try:
        times = [float(value) for value in values]
    except ValueError:
        return 0.0
    if seconds is None or len(times) < 2:
        return 0.0
    step = (times[-1] - times[0]) / (len(times) - 1)
    even = all(abs(time - times[0] - step * n) < 0.01 * abs(step) for n, time in enumerate(times))
    return step * seconds if even and step > 0 and math.isfinite(step) else 0.0
