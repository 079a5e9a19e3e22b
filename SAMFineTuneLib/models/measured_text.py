"""What a tuned model's card tells of its measurement, in words for the log and the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval_in_words(metrics: Mapping[str, Any]) -> str:
    """Where the DSC of other volumes or slices is expected; "" where the card does not say."""
    interval = (metrics.get("cross_validation") or {}).get("dsc_interval")
    if not interval:
        return ""
    low, high = interval
    others = "volumes" if metrics.get("held_out") == "volume" else "slices"
    return f"between {low:.2f} and {high:.2f} in other {others}, with a probability of 95 %"


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
    likely = interval_in_words(metrics)
    if likely and figures:
        figures[0] += f" ({likely})"
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
