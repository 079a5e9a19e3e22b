"""Volumes and labelmaps: reads and writes image files as arrays with their geometry."""

from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes.format_limits import can_hold, require_holdable
from SAMFineTuneLib.volumes.frames_writing import write_frames
from SAMFineTuneLib.volumes.labelmap import Labelmap, labelmap_onto
from SAMFineTuneLib.volumes.reading import (
    read_grid,
    read_labelmap,
    read_time,
    read_time_of_labels,
    read_volume,
)
from SAMFineTuneLib.volumes.volume import Volume
from SAMFineTuneLib.volumes.writing import (
    check_writable,
    files_of,
    write_labelmap,
    write_volume,
)

__all__ = [
    "Geometry",
    "Labelmap",
    "Volume",
    "can_hold",
    "check_writable",
    "files_of",
    "labelmap_onto",
    "read_grid",
    "read_labelmap",
    "read_time",
    "read_time_of_labels",
    "read_volume",
    "require_holdable",
    "write_frames",
    "write_labelmap",
    "write_volume",
]
