"""Measures a segmentation against a reference: overlap and distances between outlines."""

from SAMFineTuneLib.evaluation.overlap import dice, iou_of
from SAMFineTuneLib.evaluation.report import LabelScore, Report, evaluate
from SAMFineTuneLib.evaluation.surface import hausdorff_95, surface_dice

__all__ = [
    "LabelScore",
    "Report",
    "dice",
    "evaluate",
    "hausdorff_95",
    "iou_of",
    "surface_dice",
]
