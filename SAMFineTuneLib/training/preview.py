"""A picture of a held-out slice while a fine-tune goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.pictures.contact_sheet import SlicePanel, write_contact_sheet
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.training.training_set import TrainingSet
from SAMFineTuneLib.training.validation_split import ValidationSplit

# Drawing takes about 0.2 s that the fine-tune does not get.
_EVERY_S = 15.0


class PreviewWriter:
    """Draws the held-out labelled slice with the most structures, now and then.

    Args:
        folder: where the pictures go.
        examples: all slices.
        held_out: those among them to choose from.
        announce: told the picture's path and the slice's number.
    """

    def __init__(
        self,
        folder: Path,
        examples: TrainingSet,
        held_out: ValidationSplit,
        announce: Callable[[Path, int], None],
    ) -> None:
        self._folder = folder
        self._announce = announce
        self._last = -_EVERY_S
        candidates = [examples.slices[position] for position in held_out.validation]
        self._slice = max(candidates, key=lambda each: len(each.classes), default=None)

    def write(self, segmenter: AutomaticSegmenter, step: int) -> None:
        """Draws the slice as the network segments it now, unless it did so just before."""
        shown = self._slice
        if shown is None or time.monotonic() - self._last < _EVERY_S:
            return
        self._last = time.monotonic()
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
        self._announce(path, shown.number)
