"""What a tuned model's card tells of its measurement, in words for the log and the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def measured_in_words(metrics: Mapping[str, Any]) -> str:
    """The means over the structures; "" where nothing was measured.

    Args:
        metrics: those of a card. Cards of older versions have the DSC alone.
    """
    figures = [
        f"{name} {metrics[key]:.3f}"
        for name, key in (("DSC", "validation_dsc"), ("IoU", "validation_iou"))
        if metrics.get(key) is not None
    ]
    in_plane = []
    if metrics.get("validation_nsd") is not None:
        tolerance = metrics.get("nsd_tolerance_mm")
        at = "" if tolerance is None else f" at {tolerance:g} mm"
        in_plane.append(f"NSD {metrics['validation_nsd']:.3f}{at}")
    if metrics.get("validation_hd95_mm") is not None:
        in_plane.append(f"HD95 {metrics['validation_hd95_mm']:.2f} mm")
    if in_plane:
        figures.append(f"in the plane of the slices {' and '.join(in_plane)}")
    return ", ".join(figures)
