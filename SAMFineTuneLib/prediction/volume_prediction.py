"""Segmenting a whole volume: a labelmap in the volume's own geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.geometry.axes import AXIS_NAMES
from SAMFineTuneLib.geometry.cut_axis import cut_axis
from SAMFineTuneLib.heads.automatic_segmenter import AutomaticSegmenter
from SAMFineTuneLib.models.model_file import ModelCard
from SAMFineTuneLib.networks.staged_encoder import FeatureState, chosen
from SAMFineTuneLib.prediction.between_slices import BetweenSlices, keep_known
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.prediction.neighbour_smoothing import (
    NeighbourSmoothing,
    Slice,
    neighbours_vote,
)
from SAMFineTuneLib.prediction.slice_prediction import embed, probabilities_from
from SAMFineTuneLib.prediction.uncertainty import (
    at_temperature,
    slice_uncertainty,
    voxel_uncertainty,
)
from SAMFineTuneLib.slices.intensity import sample_voxels
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Labelmap, Volume
from SAMFineTuneLib.volumes.labelmap import smallest_label_type


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a tuned model predicts in a volume.

    Attributes:
        labelmap: the labels the model was trained with, on the volume's grid.
        uncertainty: (k, j, i) float32 entropy of the class probabilities, at the temperature of
            the model's card, over its largest possible value: 0 certain, 1 every class equally
            likely. None unless asked for.
        slice_uncertainty: one figure for each slice along `axis`, in index order, as
            `prediction.uncertainty` defines it: 0 where nothing is uncertain, as on slices on which
            every structure is known and which were not predicted.
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
    known: Sequence[KnownStructure] = (),
    smooth: bool = False,
) -> Prediction:
    """Segments every slice; beside the result, memory holds one batch.

    With `smooth` it also holds the class probabilities of nine slices at most, and with drawn
    slices the features of these.

    On known slices the structures are as the user drew them, and between drawn slices they are
    as `BetweenSlices` computes them, which keeps two slices of each structure in memory. Slices on
    which every structure is known, such as all beyond the ends of the only one, are not computed,
    unless the uncertainty is asked for: it is that of the model alone on every slice.

    Args:
        segmenter: the tuned network, in eval mode.
        card: the model's card.
        volume: any geometry.
        batch: slices at a time.
        with_uncertainty: whether to compute the entropy, too.
        progress: called with the numbers of finished and of all slices; may raise to stop. Slices
            that are not computed are counted in proportion, as the work advances.
        known: what the user has drawn in this volume. Structures that the model does not know are
            left out. Those drawn on slices along another axis are kept as they are drawn, but do
            not change the slices between them.
        smooth: whether slices are smoothed by those above and below, as `NeighbourSmoothing` does;
            the uncertainty is that of each slice by itself.

    Raises:
        InputError: a volume with the same value in every voxel.
    """
    axis = slice_axis(card, volume)
    stack = SliceStack.of(volume, axis)
    window = card.normalisation.window_for(sample_voxels(volume))
    values = np.array([0, *(label.value for label in card.labels)])
    kind = smallest_label_type(int(values.max()))
    labels = SliceStack(np.zeros(volume.geometry.shape, kind), volume.geometry, stack.axis)
    entropies = (
        SliceStack(np.zeros(volume.geometry.shape, np.float32), volume.geometry, stack.axis)
        if with_uncertainty
        else None
    )
    in_doubt = [0.0] * len(stack)
    known = [each for each in known if each.label in values]
    settled = _settled(known, values[1:], stack)
    computed = np.flatnonzero(~settled | with_uncertainty).tolist()

    def encode(numbers: Sequence[int]) -> FeatureState:
        images = [window.apply(stack[number]) for number in numbers]
        return embed(segmenter.network, images, window, stack.pixel_spacing)

    between = _between_slices(
        known,
        values,
        stack,
        segmenter.network.input_size,
        encode,
        lambda number: window.apply(stack[number]),
        lambda: progress(0, len(stack)),
    )
    spacing = float(volume.geometry.spacing[::-1][stack.axis])
    smoothing = NeighbourSmoothing(spacing) if smooth and neighbours_vote(spacing) else None

    def write(predicted: Slice) -> None:
        number, probabilities = predicted.number, predicted.probabilities
        if between is None or predicted.features is None:
            labels[number][...] = values[probabilities.argmax(0).cpu().numpy()]
            return
        for each, found in between.add(number, probabilities.cpu(), predicted.features):
            labels[each][...] = values[found]

    for start in range(0, len(computed), batch):
        progress(len(stack) * start // len(computed), len(stack))
        numbers = computed[start : start + batch]
        state = encode(numbers)
        probabilities = probabilities_from(segmenter, state, stack.slice_shape, stack.pixel_spacing)
        # The classes, and what neighbouring and drawn slices make of them, come from the
        # probabilities as they are: their weights were measured so.
        tempered = at_temperature(probabilities, card.temperature)
        doubts = slice_uncertainty(tempered, probabilities)
        for number, doubt in zip(numbers, doubts, strict=True):
            in_doubt[number] = doubt
        for place, number in enumerate(numbers):
            if settled[number]:
                continue
            features = None if between is None else chosen(state, slice(place, place + 1))
            predicted = Slice(number, probabilities[place], features)
            if smoothing is None:
                write(predicted)
                continue
            for each in smoothing.add(predicted, window.apply(stack[number])):
                write(each)
        if entropies is not None:
            for place, number in enumerate(numbers):
                entropies[number][...] = voxel_uncertainty(tempered[place]).cpu().numpy()
    for each in smoothing.rest() if smoothing is not None else ():
        write(each)
    keep_known(labels, known)
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


def _settled(
    known: Sequence[KnownStructure], labels: NDArray[np.int64], stack: SliceStack
) -> NDArray[np.bool_]:
    """(slices,) bool, where every label is known along the stack's axis."""
    settled = np.ones(len(stack), bool)
    for label in labels:
        own = [each.known for each in known if each.label == label and each.axis == stack.axis]
        settled &= np.any(own, axis=0) if own else False
    return settled


def _between_slices(
    known: Sequence[KnownStructure],
    values: NDArray[np.int64],
    stack: SliceStack,
    size: int,
    encode: Callable[[Sequence[int]], FeatureState],
    levels: Callable[[int], NDArray[np.floating]],
    report: Callable[[], None],
) -> BetweenSlices | None:
    """The segmentation between drawn slices; None where none is drawn along this axis."""
    structures = [each for each in known if each.axis == stack.axis]
    if not structures:
        return None

    def features(number: int) -> FeatureState:
        report()
        return encode([number])

    classes = [int(np.flatnonzero(values == each.label)[0]) for each in structures]
    rows, columns = stack.slice_shape
    fit = SquareFit(rows, columns, stack.pixel_spacing, size)
    return BetweenSlices(structures, classes, stack, fit, features, levels)


def slice_axis(card: ModelCard, volume: Volume) -> str:
    """The axis along which a model cuts a volume; a picture is never cut, whatever its plane."""
    return cut_axis(volume.geometry, card.axis if card.axis in AXIS_NAMES else None)


def keep_largest_components(labelmap: Labelmap) -> Labelmap:
    """Keeps the connected region of each label with the most voxels (26 neighbours)."""
    kept = np.zeros_like(labelmap.array)
    for label in labelmap.labels:
        image = sitk.GetImageFromArray((labelmap.array == label).astype(np.uint8))
        regions = sitk.RelabelComponent(sitk.ConnectedComponent(image, True), sortByObjectSize=True)
        kept[sitk.GetArrayViewFromImage(regions) == 1] = label
    return replace(labelmap, array=kept)
