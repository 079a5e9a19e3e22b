"""Measures a segmentation against a reference: overlap and surface distance."""

from SAMFineTuneLib.evaluation.overlap import dice
from SAMFineTuneLib.evaluation.report import LabelScore, Report, evaluate
from SAMFineTuneLib.evaluation.surface import surface_dice

__all__ = ["LabelScore", "Report", "dice", "evaluate", "surface_dice"]
