"""A whole volume to a labelmap in the volume's own geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.model_file import ModelCard
from SAMFineTuneLib.prediction.slice_prediction import class_probabilities
from SAMFineTuneLib.prediction.uncertainty import slice_uncertainty, voxel_uncertainty
from SAMFineTuneLib.slices.axis import AXIS_NAMES, axis_name
from SAMFineTuneLib.slices.intensity import sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack, widest_axis
from SAMFineTuneLib.volumes import Labelmap, Volume
from SAMFineTuneLib.volumes.labelmap import smallest_label_type


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a tuned model sees in a volume.

    Attributes:
        labelmap: the labels the model was trained with, on the volume's grid.
        uncertainty: (k, j, i) float32 entropy of the class probabilities over its largest
            possible value: 0 certain, 1 every class equally likely. None unless asked for.
        slice_uncertainty: one figure a slice along `axis`, in index order, as
            `prediction.uncertainty` defines it: 0 where nothing is in doubt.
        axis: along which the slices were cut.
    """

    labelmap: Labelmap
    uncertainty: np.ndarray | None
    slice_uncertainty: list[float]
    axis: str


def predict_volume(
    segmenter: AutomaticSegmenter,
    card: ModelCard,
    volume: Volume,
    batch: int,
    with_uncertainty: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Segments every slice; memory beside the result is that of one batch.

    Args:
        segmenter: the tuned network, in eval mode.
        card: the model's card.
        volume: any geometry.
        batch: slices at a time.
        with_uncertainty: also give the entropy.
        progress: called with slices done and in all; may raise to stop.

    Raises:
        InputError: a volume with the same value in every voxel.
    """
    axis = slice_axis(card, volume)
    stack = SliceStack.of(volume, axis)
    window = card.normalisation.window_for(sample_voxels(volume))
    values = np.array([0, *(label.value for label in card.labels)])
    kind = smallest_label_type(int(values.max()))
    labels = SliceStack(np.zeros(volume.array.shape, kind), volume.geometry, stack.axis)
    entropies = (
        SliceStack(np.zeros(volume.array.shape, np.float32), volume.geometry, stack.axis)
        if with_uncertainty
        else None
    )
    in_doubt: list[float] = []
    for start in range(0, len(stack), batch):
        progress(start, len(stack))
        numbers = range(start, min(start + batch, len(stack)))
        images = [window.apply(stack[number]) for number in numbers]
        probabilities = class_probabilities(segmenter, images, window, stack.pixel_spacing)
        found = probabilities.argmax(1).cpu().numpy()
        in_doubt += slice_uncertainty(probabilities)
        for place, number in enumerate(numbers):
            labels[number][...] = values[found[place]]
        if entropies is not None:
            for place, number in enumerate(numbers):
                entropies[number][...] = voxel_uncertainty(probabilities[place]).cpu().numpy()
    progress(len(stack), len(stack))
    labelmap = Labelmap(
        labels.array,
        volume.geometry,
        {label.value: label.name for label in card.labels if label.name},
        {label.value: label.colour for label in card.labels if label.colour is not None},
        terminologies={
            label.value: label.terminology for label in card.labels if label.terminology
        },
    )
    return Prediction(labelmap, entropies.array if entropies else None, in_doubt, axis)


def slice_axis(card: ModelCard, volume: Volume) -> str:
    """The axis along which a model cuts a volume."""
    if card.axis in AXIS_NAMES:
        return card.axis
    widest = widest_axis(volume.geometry)
    return axis_name(volume.geometry, widest) if widest is not None else "axial"


def keep_largest_components(labelmap: Labelmap) -> Labelmap:
    """Of each label, the connected region with the most voxels (26 neighbours)."""
    kept = np.zeros_like(labelmap.array)
    for label in labelmap.labels:
        image = sitk.GetImageFromArray((labelmap.array == label).astype(np.uint8))
        regions = sitk.RelabelComponent(sitk.ConnectedComponent(image, True), sortByObjectSize=True)
        kept[sitk.GetArrayViewFromImage(regions) == 1] = label
    return replace(labelmap, array=kept)
