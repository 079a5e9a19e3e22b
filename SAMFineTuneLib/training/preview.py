"""Pictures of a held-out slice while a fine-tune runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from SAMFineTuneLib.examples.training_set import TrainingSet
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.training.validation_split import ValidationSplit

# Drawing a picture takes about 0.2 s, by which the fine-tune is delayed.
_EVERY_S = 15.0


class PreviewWriter:
    """Draws the held-out slice with the most structures, at most once in 15 s.

    Args:
        folder: where the pictures go.
        examples: all slices.
        held_out: the slices to choose from.
        report: called with the picture's path and the slice's number.
    """

    def __init__(
        self,
        folder: Path,
        examples: TrainingSet,
        held_out: ValidationSplit,
        report: Callable[[Path, int], None],
    ) -> None:
        self._folder = folder
        self._report = report
        self._last = -_EVERY_S
        candidates = [examples.slices[position] for position in held_out.validation]
        self._slice = max(candidates, key=lambda each: len(each.classes), default=None)

    def write(self, segmenter: AutomaticSegmenter, step: int) -> None:
        """Draws the slice as the network segments it now, unless the last picture is too recent."""
        shown = self._slice
        if shown is None or time.monotonic() - self._last < _EVERY_S:
            return
        self._last = time.monotonic()
        # The library that draws takes 0.7 s to load, and the first steps need not wait for it.
        from SAMFineTuneLib.pictures.contact_sheet import SlicePanel, write_contact_sheet

        segmenter.eval()
        probabilities = class_probabilities(segmenter, [shown.image], shown.window, shown.spacing)
        segmenter.train()
        path = self._folder / f"step_{step:06d}.png"
        panel = SlicePanel(
            f"held-out slice {shown.number}, step {step}",
            shown.image.astype(float),
            shown.target,
            probabilities[0].argmax(0).cpu().numpy(),
            aspect=shown.spacing[0] / shown.spacing[1],
        )
        write_contact_sheet(path, [panel])
        self._report(path, shown.number)
