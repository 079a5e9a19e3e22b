"""Segmentation between the drawn slices of a volume.

Where a user has drawn a structure on some slices of a volume, these slices hold more information
about it than a model that was tuned on them: its position, its shape, and its appearance in this
patient. So the mask between two drawn slices is made from three sources: the shape interpolated
between them (Raya and Udupa 1990), a regression from the features of the drawn slices
(`feature_regression`), and the prediction of the tuned model. The weight of the two that depend on
the image grows with the distance from the drawn slices. Where the drawn masks hardly overlap, as
those of a vessel that runs obliquely do, no shape can be interpolated, and the model alone decides.

DSC of ten organs of a CT on the slices between five drawn ones each: shape alone 0.909, the tuned
model alone 0.930, all three 0.941; of both parts of the hippocampus between three drawn ones, in
volumes that the model has not seen: 0.466, 0.723 and 0.746 (`Testing.benchmarks.few_shot`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SAMFineTuneLib.geometry.shape_interpolation import Distance, shape_between, signed_distance
from SAMFineTuneLib.networks.staged_encoder import FeatureState
from SAMFineTuneLib.prediction.feature_regression import (
    FeatureRegression,
    FeatureSums,
    feature_maps,
)
from SAMFineTuneLib.prediction.known_structure import KnownStructure
from SAMFineTuneLib.slices.square import SquareFit
from SAMFineTuneLib.slices.stack import SliceStack

# Weights of the logits: how many mm they shift the outline for each mm of distance from the nearest
# drawn slice.
FEATURES_WEIGHT, MODEL_WEIGHT = 0.3, 0.1
# Larger logits are clipped, because they carry no more information than this one.
LARGEST_LOGIT = 6.0
# Below this DSC with the interpolated shape alone, the result is not trusted.
_LEAST_AGREEMENT = 0.6
# Share of the smaller of two drawn masks that must overlap with the other one.
_LEAST_OVERLAP = 0.4


class _Span(NamedTuple):
    """A structure, its class, and the two drawn slices between which a slice lies."""

    structure: KnownStructure
    column: int
    first: int
    last: int


class BetweenSlices:
    """Segments the slices of a volume that has drawn slices.

    Args:
        structures: the known structures of this volume, cut along the stack's axis.
        classes: number of each structure among the model's classes.
        stack: the volume's slices.
        fit: of a slice on the network's square.
        features: computes the image encoder's features of a slice.
    """

    def __init__(
        self,
        structures: Sequence[KnownStructure],
        classes: Sequence[int],
        stack: SliceStack,
        fit: SquareFit,
        features: Callable[[int], FeatureState],
    ) -> None:
        self._structures = list(zip(structures, classes, strict=True))
        self._fit = fit
        self._pixel_spacing = stack.pixel_spacing
        self._slice_spacing = float(stack.geometry.spacing[::-1][stack.axis])
        fillable = [each for each in structures if each.has_between]
        self._regressions = _fitted(fillable, fit, features)
        self._distances: dict[tuple[int, int], Distance] = {}

    def complete(
        self, number: int, probabilities: Tensor, features: FeatureState
    ) -> NDArray[np.int64]:
        """Class numbers (rows, columns) of a slice; `keep_known` adds those that are known.

        Args:
            number: of the slice.
            probabilities: (classes, rows, columns) of the model, background first.
            features: the image encoder's features of the slice.
        """
        spans = self._spans(number)
        remaining = probabilities.clone()
        # For these classes the model alone does not decide, so their voxels are free for others.
        remaining[[each.column for each in spans] + self._known_on(number)] = -1.0
        classes: NDArray[np.int64] = remaining.argmax(0).numpy()
        if spans:
            self._fill(spans, number, probabilities, features, classes)
        self._forget_others(spans)
        return classes

    def _spans(self, number: int) -> list[_Span]:
        found = []
        for structure, column in self._structures:
            ends = structure.between(number)
            if ends and _overlap(structure.mask(ends[0]), structure.mask(ends[1])):
                found.append(_Span(structure, column, *ends))
        return found

    def _known_on(self, number: int) -> list[int]:
        return [column for structure, column in self._structures if structure.known[number]]

    def _fill(
        self,
        spans: Sequence[_Span],
        number: int,
        probabilities: Tensor,
        features: FeatureState,
        classes: NDArray[np.int64],
    ) -> None:
        """Fills in the structures; a voxel gets the class within whose outline it lies deepest."""
        maps = feature_maps(features, self._fit.size)
        odds = _Odds(probabilities)
        deepest = np.zeros(classes.shape, np.float32)
        for span in spans:
            logits = self._regressions[span.structure.label].logits(maps, self._fit)
            seen = MODEL_WEIGHT * odds.of(span.column)
            seen += FEATURES_WEIGHT * logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT)
            distance = self._distance(span, number, seen)
            deeper = distance > deepest
            classes[deeper] = span.column
            deepest[deeper] = distance[deeper]

    def _distance(self, span: _Span, number: int, seen: NDArray[np.float32]) -> Distance:
        """Distance to the outline in mm, positive inside, from the shape and the image."""
        drawn = {each: self._drawn(span.structure, each) for each in (span.first, span.last)}
        shape = shape_between(drawn, number)
        away = min(number - span.first, span.last - number) * self._slice_spacing
        return moved_outline(shape, away, seen)

    def _drawn(self, structure: KnownStructure, number: int) -> Distance:
        key = (structure.label, number)
        if key not in self._distances:
            self._distances[key] = signed_distance(structure.mask(number), self._pixel_spacing)
        return self._distances[key]

    def _forget_others(self, spans: Sequence[_Span]) -> None:
        """Keeps the distances of two slices for each structure, and deletes the others."""
        used = {(span.structure.label, end) for span in spans for end in (span.first, span.last)}
        self._distances = {key: each for key, each in self._distances.items() if key in used}


def moved_outline(shape: Distance, away: float, seen: NDArray[np.float32]) -> Distance:
    """Shifts an interpolated outline by what the image shows.

    Distances to an outline are in mm, and positive inside.

    Args:
        shape: distance to the outline interpolated from the drawn masks.
        away: mm to the nearer drawn slice.
        seen: shift of the outline by the image, in mm for each mm away.

    Returns:
        Distance to the shifted outline; `shape` where the two agree too little.
    """
    distance: Distance = shape + np.float32(away) * seen
    return distance if agreement(distance > 0, shape > 0) >= _LEAST_AGREEMENT else shape


def agreement(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """DSC of two masks; 1 where both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return 2 * int((mask & other).sum()) / total if total else 1.0


def keep_known(labels: SliceStack, structures: Sequence[KnownStructure]) -> None:
    """Writes the drawn masks into a labelmap, and clears structures where they are absent."""
    for structure in structures:
        drawn = SliceStack(labels.array, labels.geometry, structure.axis)
        for number in np.flatnonzero(structure.known).tolist():
            plane = drawn[number]
            plane[plane == structure.label] = 0
            plane[structure.mask(number)] = structure.label


def _fitted(
    structures: Sequence[KnownStructure], fit: SquareFit, features: Callable[[int], FeatureState]
) -> dict[int, FeatureRegression]:
    sums: dict[int, FeatureSums] = {}
    for number in sorted({each for structure in structures for each in structure.drawn}):
        maps = feature_maps(features(number), fit.size)
        for structure in structures:
            if number in structure.drawn:
                own = FeatureSums.of(maps, structure.mask(number), fit)
                label = structure.label
                sums[label] = FeatureSums.total([sums[label], own]) if label in sums else own
    return {label: FeatureRegression.fitted_to(each) for label, each in sums.items()}


class _Odds:
    """Log odds of each class against the likeliest of the others.

    Args:
        probabilities: (classes, rows, columns).
    """

    def __init__(self, probabilities: Tensor) -> None:
        self._logs = probabilities.clamp(min=1e-6).log()
        # The two largest values serve all classes, which is faster than a maximum for each.
        (self._largest, self._second), (self._likeliest, _) = self._logs.topk(2, dim=0)

    def of(self, column: int) -> NDArray[np.float32]:
        """(rows, columns), the log odds of one class."""
        others = torch.where(self._likeliest == column, self._second, self._largest)
        odds: NDArray[np.float32] = (
            (self._logs[column] - others).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).numpy()
        )
        return odds


def _overlap(first: NDArray[np.bool_], last: NDArray[np.bool_]) -> bool:
    """Whether two drawn masks overlap enough to interpolate between them."""
    smaller = min(np.count_nonzero(first), np.count_nonzero(last))
    return bool(np.count_nonzero(first & last) >= _LEAST_OVERLAP * smaller)
