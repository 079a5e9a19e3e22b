"""Measures a segmentation against a reference, label by label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation.in_plane import InPlaneDistances
from SAMFineTuneLib.evaluation.known_mean import mean_of_known
from SAMFineTuneLib.evaluation.overlap import dice, iou_of
from SAMFineTuneLib.evaluation.sheared_masks import straightened
from SAMFineTuneLib.evaluation.surface import TOLERANCE_MM, hausdorff_95, surface_dice
from SAMFineTuneLib.geometry.axes import AXIS_NAMES, array_axis
from SAMFineTuneLib.geometry.drawn_axis import only_slice_axis
from SAMFineTuneLib.volumes import Geometry, Labelmap, labelmap_onto
from SAMFineTuneLib.volumes.pictures.fitting import fits_by_pixels


@dataclass(frozen=True)
class LabelScore:
    """The scores of one label.

    Attributes:
        label: its number.
        name: its name, "" if neither file gives one.
        dsc: Dice similarity coefficient; None if the label is in neither file.
        iou: intersection over union; None if the label is in neither file.
        nsd: normalised surface distance; None if the label is in neither file.
        hd95_mm: 95th-percentile Hausdorff distance in mm; None if the label is not in both files.
        prediction_ml: volume in the prediction, millilitres.
        reference_ml: volume in the reference, millilitres.
    """

    label: int
    name: str
    dsc: float | None
    iou: float | None
    nsd: float | None
    hd95_mm: float | None
    prediction_ml: float
    reference_ml: float


@dataclass(frozen=True)
class Report:
    """The result of `evaluate`.

    Attributes:
        labels: the scores of each label, by ascending number.
        mean_dsc: mean over the labels that are in the prediction or the reference; None if none is.
        mean_iou: the same mean of the intersection over union.
        mean_nsd: the same mean of the normalised surface distance.
        mean_hd95_mm: mean of the 95th-percentile Hausdorff distance over the labels that are in
            both; None if none is.
        empty_labels: how many labels are in neither, and so not in the means.
        tolerance_mm: the tolerance of the normalised surface distance.
        axis: the axis along which `slices` are counted; None for whole volumes.
        slices: the slices that were measured, in the reference's index order; None for all.
        resampled: whether the prediction had to be resampled onto the reference's grid.
    """

    labels: tuple[LabelScore, ...]
    mean_dsc: float | None
    mean_iou: float | None
    mean_nsd: float | None
    mean_hd95_mm: float | None
    empty_labels: int
    tolerance_mm: float
    axis: str | None
    slices: tuple[int, ...] | None
    resampled: bool

    def to_json(self) -> dict[str, Any]:
        """The report as plain lists, numbers and strings."""
        found = asdict(self)
        found["labels"] = list(found["labels"])
        found["slices"] = None if self.slices is None else list(self.slices)
        return found


def evaluate(
    prediction: Labelmap,
    reference: Labelmap,
    labels: Iterable[int] | None = None,
    slices: Iterable[int] | None = None,
    axis: str = "axial",
    tolerance_mm: float = TOLERANCE_MM,
) -> Report:
    """DSC, IoU, NSD and Hausdorff distance of each label, in whole volumes or in chosen slices.

    Whole volumes are measured in 3-D; one that is a single slice, such as a picture, in its plane,
    because in 3-D each of its voxels would belong to the surface. In chosen slices, DSC and IoU
    count the voxels of all of them together. NSD and the Hausdorff distance are taken in the plane
    of each slice; NSD is averaged over the slices in which the prediction or the reference has the
    label, the distance over those in which both have it.

    Args:
        prediction: the segmentation to measure; resampled if it is on another grid.
        reference: the truth.
        labels: which labels; None for all that are in either.
        slices: slice numbers along `axis` in the reference's own index order; None for all.
        axis: "axial", "coronal" or "sagittal".
        tolerance_mm: distance between outlines that still counts as right.

    Raises:
        InputError: the prediction does not lie over the reference, a slice is out of range, or an
            argument is not allowed.
    """
    _check_tolerance(tolerance_mm)
    geometry = reference.geometry
    by_pixels = fits_by_pixels(prediction.geometry, geometry)
    resampled = not (by_pixels or prediction.geometry.same_as(geometry))
    predicted, true = labelmap_onto(prediction, geometry).array, reference.array
    chosen = None if slices is None else _chosen_slices(geometry, axis, slices)
    if chosen is None:
        wanted = _wanted(labels, {*prediction.labels, *reference.labels})
        across = only_slice_axis(geometry.shape)
        scores = [
            _in_volume(predicted, true, label, geometry, tolerance_mm)
            if across is None
            else _in_slices(predicted, true, label, geometry, across, tolerance_mm)
            for label in wanted
        ]
    else:
        number = array_axis(geometry, axis)
        predicted = np.take(predicted, chosen, axis=number)
        true = np.take(true, chosen, axis=number)
        wanted = _wanted(labels, {*_values(predicted), *_values(true)})
        scores = [
            _in_slices(predicted, true, label, geometry, number, tolerance_mm) for label in wanted
        ]
    names = {**prediction.names, **reference.names}
    rows = tuple(
        LabelScore(
            label,
            names.get(label, ""),
            dsc,
            iou_of(dsc),
            nsd,
            distance,
            np.count_nonzero(predicted == label) * geometry.voxel_ml,
            np.count_nonzero(true == label) * geometry.voxel_ml,
        )
        for label, (dsc, nsd, distance) in zip(wanted, scores, strict=True)
    )
    return Report(
        labels=rows,
        mean_dsc=mean_of_known([row.dsc for row in rows]),
        mean_iou=mean_of_known([row.iou for row in rows]),
        mean_nsd=mean_of_known([row.nsd for row in rows]),
        mean_hd95_mm=mean_of_known([row.hd95_mm for row in rows]),
        empty_labels=sum(row.dsc is None for row in rows),
        tolerance_mm=float(tolerance_mm),
        axis=None if chosen is None else axis,
        slices=None if chosen is None else tuple(chosen),
        resampled=resampled,
    )


# DSC, NSD and 95th-percentile Hausdorff distance.
Scores = tuple[float | None, float | None, float | None]


def _in_volume(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    label: int,
    geometry: Geometry,
    tolerance_mm: float,
) -> Scores:
    predicted, true = prediction == label, reference == label
    (one, other), spacing = straightened((predicted, true), _edges(geometry))
    near = surface_dice(one, other, spacing, tolerance_mm)
    return dice(predicted, true), near, hausdorff_95(one, other, spacing)


def _in_slices(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    label: int,
    geometry: Geometry,
    axis: int,
    tolerance_mm: float,
) -> Scores:
    predicted = np.moveaxis(prediction == label, axis, 0)
    true = np.moveaxis(reference == label, axis, 0)
    edges = np.delete(_edges(geometry), axis, axis=1)
    distances = InPlaneDistances(tolerance_mm)
    for slices in zip(predicted, true, strict=True):
        (one, other), spacing = straightened(slices, edges)
        distances.add(one, other, spacing)
    return dice(predicted, true), distances.nsd, distances.hd95_mm


def _edges(geometry: Geometry) -> NDArray[np.float64]:
    """The steps in mm to the next voxel along k, j and i, one column each."""
    steps: NDArray[np.float64] = geometry.affine[:3, :3][:, ::-1]
    return steps


def _chosen_slices(geometry: Geometry, axis: str, slices: Iterable[int]) -> list[int]:
    if axis not in AXIS_NAMES:
        raise InputError(
            f"unknown axis '{axis}'", "Use one of " + ", ".join(AXIS_NAMES), "bad_axis"
        )
    chosen = sorted({int(number) for number in slices})
    count = geometry.shape[array_axis(geometry, axis)]
    if not chosen:
        raise InputError(
            "no slice to measure", "Name slices, or none to measure whole volumes", "no_slice"
        )
    outside = [number for number in chosen if not 0 <= number < count]
    if outside:
        raise InputError(
            f"there is no {axis} slice {outside[0]}",
            f"The {axis} slices go from 0 to {count - 1}",
            code="slice_out_of_range",
        )
    return chosen


def _check_tolerance(tolerance_mm: float) -> None:
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise InputError(
            f"the tolerance is {tolerance_mm} mm",
            "Give a number of millimetres, 0 or more",
            code="bad_tolerance",
        )


def _wanted(labels: Iterable[int] | None, present: set[int]) -> list[int]:
    wanted = sorted(present if labels is None else {int(label) for label in labels})
    if any(label < 1 for label in wanted):
        raise InputError(
            f"{wanted[0]} is not a label", "Labels are whole numbers from 1", "bad_label"
        )
    return wanted


def _values(array: NDArray[Any]) -> set[int]:
    return {int(value) for value in np.unique(array)} - {0}
