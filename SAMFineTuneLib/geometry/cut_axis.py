"""The axis along which a volume is cut into slices for a network."""

from __future__ import annotations

from SAMFineTuneLib.geometry.axes import axis_name
from SAMFineTuneLib.geometry.drawn_axis import only_slice_axis, stacking_axis
from SAMFineTuneLib.geometry.grid import Geometry


def cut_axis(geometry: Geometry, chosen: str | None) -> str:
    """The axis of a picture's only slice; else the chosen one, or the one with the widest spacing.

    Args:
        geometry: the grid of the volume.
        chosen: the name of the axis that the user or a model names, or None. A picture is not cut
            along it, because it would fall into lines.

    Returns:
        "axial", "coronal" or "sagittal"; "axial" where nothing decides.
    """
    if chosen is not None and only_slice_axis(geometry.shape) is None:
        return chosen
    axis = stacking_axis(geometry.shape, geometry.spacing[::-1])
    return "axial" if axis is None else axis_name(geometry, axis)
