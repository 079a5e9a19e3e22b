"""How good a segmentation is: overlap and surface distance against a reference."""

from SAMFineTuneLib.evaluation.overlap import dice
from SAMFineTuneLib.evaluation.report import LabelScore, Report, evaluate
from SAMFineTuneLib.evaluation.surface import surface_dice

__all__ = ["LabelScore", "Report", "dice", "evaluate", "surface_dice"]
