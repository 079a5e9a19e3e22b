"""How well a network segments the slices held out of its fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from SAMFineTuneLib.heads.class_mask_decoder import AutomaticSegmenter
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.training.examples import LabelledSlice


@dataclass(frozen=True)
class ValidationDsc:
    """DSC by class number, over the pixels of all held-out slices on which the class is known.

    A class that is in neither the labels nor the prediction has no DSC.
    """

    by_class: dict[int, float | None]

    @property
    def mean(self) -> float | None:
        """Mean over the classes that have one; None when none has."""
        values = [value for value in self.by_class.values() if value is not None]
        return float(np.mean(values)) if values else None


def validate(
    segmenter: AutomaticSegmenter,
    slices: Sequence[LabelledSlice],
    batch: int,
    check: Callable[[], None] = lambda: None,
) -> ValidationDsc:
    """Predicts held-out slices, empty ones too, as `apply` would, without prompts.

    Args:
        segmenter: the network; left in the mode it was in.
        slices: the held-out slices.
        batch: slices at a time.
        check: called between batches; may raise to stop.
    """
    was_training = segmenter.training
    segmenter.eval()
    classes = len(slices[0].known)
    overlap = np.zeros(classes)
    sizes = np.zeros(classes)
    for group in _batches(slices, batch):
        check()
        images = [each.image for each in group]
        probabilities = class_probabilities(segmenter, images, group[0].window, group[0].spacing)
        for each, predicted in zip(group, probabilities.argmax(1).cpu().numpy(), strict=True):
            for number in np.flatnonzero(each.known):
                found, truth = predicted == number, each.target == number
                overlap[number] += (found & truth).sum()
                sizes[number] += found.sum() + truth.sum()
    segmenter.train(was_training)
    return ValidationDsc(
        {
            number: float(2 * overlap[number] / sizes[number]) if sizes[number] else None
            for number in range(1, classes)
        }
    )


def _batches(slices: Sequence[LabelledSlice], size: int) -> list[list[LabelledSlice]]:
    """Slices of one volume at a time: a batch shares shape, spacing and window."""
    batches = []
    for _, group in groupby(slices, key=lambda each: each.volume):
        same = list(group)
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches
