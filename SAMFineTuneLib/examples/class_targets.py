"""The slices of an opened example with class numbers in place of the file's label numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from SAMFineTuneLib.examples.example_labels import Label
from SAMFineTuneLib.examples.opened_example import OpenedExample
from SAMFineTuneLib.examples.training_set import LabelledSlice
from SAMFineTuneLib.slices.intensity import IntensityNormalisation


def labelled_slices(
    volume: int,
    opened: OpenedExample,
    numbers: Mapping[int, int],
    labels: list[Label],
    normalisation: IntensityNormalisation,
) -> list[LabelledSlice]:
    """The slices of one example as the network learns from them.

    Args:
        volume: index of its volume.
        opened: the example.
        numbers: number in its segmentation -> number of the structure.
        labels: all structures of the fine-tune.
        normalisation: of the intensities.
    """
    window = normalisation.window_for(opened.sample)
    classes = {label.value: number for number, label in enumerate(labels, start=1)}
    own = {} if opened.labels is None else {each: classes[numbers[each]] for each in opened.labels}
    # Structures that are not to be learnt from this segmentation are unknown in all its slices.
    columns = list(classes.values()) if opened.labels is None else list(own.values())
    slices = []
    for each in opened.slices:
        known = np.zeros(len(labels) + 1, dtype=bool)
        known[0] = True
        known[columns] = each.known
        slices.append(
            LabelledSlice(
                image=window.apply(each.pixels).astype(np.float16),
                target=_target(each.mask, own, known),
                known=known,
                window=window,
                spacing=opened.spacing,
                volume=volume,
                number=each.number,
            )
        )
    return slices


def _target(mask: np.ndarray, classes: Mapping[int, int], known: np.ndarray) -> np.ndarray:
    """Class numbers, from label numbers of a file and the class of each label."""
    target = np.zeros(mask.shape, dtype=np.uint8 if len(known) <= 256 else np.int32)
    for value, class_number in classes.items():
        if known[class_number]:
            target[mask == value] = class_number
    return target
