"""Reading the volume and the segmentation of one example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SAMFineTuneLib.errors import told_of
from SAMFineTuneLib.examples.example import Example
from SAMFineTuneLib.examples.example_frames import ExampleFrame
from SAMFineTuneLib.examples.example_labels import LabelsOfExample
from SAMFineTuneLib.examples.kept_slices import KnownSlice, kept_empty_slices, kept_slices
from SAMFineTuneLib.geometry.drawn_axis import only_slice_axis, stacking_axis
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, VoxelSample, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack, drawn_instead, suggest_axis
from SAMFineTuneLib.volumes import (
    Labelmap,
    Volume,
    labelmap_onto,
    read_grid,
    read_labelmap,
)
from SAMFineTuneLib.volumes.case import read_case
from SAMFineTuneLib.volumes.dicom.frame_of_reference import other_frame_of_reference
from SAMFineTuneLib.volumes.dicom.labels import dicom_labels
from SAMFineTuneLib.volumes.image_as_labels import require_other_values, require_two_files
from SAMFineTuneLib.volumes.label_matching import named_labels

# That of files without an axis of time.
ONE_VOLUME = ExampleFrame()


@dataclass(frozen=True, eq=False)
class OpenedExample:
    """What is kept of an example: the slices to learn from, not the whole volume.

    Attributes:
        example: where it comes from.
        labels: those to learn, in the segmentation's own numbers. None where the segmentation is
            empty and all labels are meant; `KnownSlice.known` then has one column, which holds
            for each of them.
        present: the labels that have voxels in the segmentation.
        named: the names and colours that the segmentation gives its labels.
        axis: along which it is cut.
        spacing: mm between rows and between columns.
        slices: those to learn from.
        sample: of the volume's voxels.
        warnings: what the user should know, one sentence each.
        series: UID of the DICOM series; None for other files.
    """

    example: Example
    labels: list[int] | None
    present: list[int]
    named: LabelsOfExample
    axis: str
    spacing: tuple[float, float]
    slices: list[KnownSlice]
    sample: VoxelSample
    warnings: list[str]
    series: str | None = None

    @property
    def volume(self) -> tuple[Path | str, str | None]:
        """What two examples of the same volume, or of one group, have in common.

        It is the path and the series, or the name of the group. All frames are of one volume, so
        that none is held out while another is learnt from.
        """
        if self.example.group:
            return self.example.group, None
        return self.example.volume.resolve(), self.series

    @property
    def labelled_slices(self) -> int:
        """How many of the slices to learn from show a structure."""
        return sum(bool(np.isin(each.mask, self.labels or []).any()) for each in self.slices)


def read_labels(example: Example, frame: ExampleFrame = ONE_VOLUME) -> Labelmap:
    """The segmentation of an example, which may be empty, in its own geometry."""
    if example.labels == "all":
        require_two_files(example.volume, example.segmentation)
    # Contours have no grid of their own, and a DICOM segmentation may hold only some slices.
    is_dicom = dicom_labels(example.segmentation) is not None
    return read_labelmap(
        example.segmentation,
        frame=frame.segmentation,
        empty_ok=True,
        over=read_grid(example.volume, example.series) if is_dicom else None,
        wanted=None if example.labels == "all" else example.labels,
        on_top=example.on_top,
        merge=example.merge,
    )


def open_example(
    example: Example,
    labelmap: Labelmap,
    axis_if_empty: str = "axial",
    most_if_empty: int = 0,
    expected: IntensityNormalisation | None = None,
    frame: ExampleFrame = ONE_VOLUME,
) -> OpenedExample:
    """Reads the volume of an example and cuts it into slices.

    Args:
        example: the example.
        labelmap: its segmentation, from `read_labels`.
        axis_if_empty: the axis to cut along where the segmentation is empty and the volume's
            spacing does not decide.
        most_if_empty: how many slices are kept where the segmentation is empty.
        expected: the normalisation of the model that the fine-tune starts from.
        frame: which frame is read, where the files have an axis of time.

    Raises:
        InputError: a file that cannot be used, or slice numbers that do not fit.
    """
    volume = read_case(example.volume, example.channels, example.series, frame.volume)
    if expected is not None:
        volume = as_expected(volume, expected, example.volume.name)
    if example.labels == "all":
        require_other_values(volume, labelmap, example.volume, example.segmentation)
    present = labelmap.labels
    labels = _labels_to_learn(example, present)
    names = named_labels(labelmap, example.label_names)
    with told_of(example.segmentation.name):
        labelmap = labelmap_onto(labelmap, volume.geometry, empty_anywhere=True)
    chosen = _only(labelmap, labels or [])
    axis = _axis(example, volume, chosen, None if present else axis_if_empty)
    images, masks = SliceStack.of(volume, axis), SliceStack.of(labelmap, axis)
    # A number that no voxel has stands for all labels.
    asked = [1] if labels is None else labels
    knowledge = example.slice_knowledge
    with told_of(example.volume.name):
        sample = sample_voxels(volume)
    return OpenedExample(
        example=example,
        labels=labels,
        present=present,
        named=LabelsOfExample(example.segmentation.name, labels or [], names, labelmap.colours),
        axis=axis,
        spacing=images.pixel_spacing,
        slices=kept_slices(images, masks, asked, knowledge)
        if present
        else kept_empty_slices(images, masks, asked, knowledge, most_if_empty),
        sample=sample,
        warnings=[
            *volume.remarks,
            *labelmap.remarks,
            *other_frame_of_reference(labelmap, example.segmentation, example.volume),
            *_axis_warnings(example, axis, drawn_instead(chosen, axis)),
        ],
        series=volume.series,
    )


def _labels_to_learn(example: Example, present: list[int]) -> list[int] | None:
    if example.labels != "all":
        return example.labels
    return present or None


def _only(labelmap: Labelmap, labels: list[int]) -> Labelmap:
    """The labelmap with these labels alone; whole where it has none of them."""
    kept = np.where(np.isin(labelmap.array, labels), labelmap.array, 0)
    return replace(labelmap, array=kept) if kept.any() else labelmap


def _axis(example: Example, volume: Volume, chosen: Labelmap, if_empty: str | None) -> str:
    """The axis to cut along; `if_empty` is given for an empty segmentation only."""
    grid = volume.geometry
    if example.axis != "auto" and only_slice_axis(grid.shape) is None:
        return example.axis
    grid_decides = stacking_axis(grid.shape, grid.spacing[::-1]) is not None
    if if_empty is not None and not grid_decides:
        return if_empty
    return suggest_axis(chosen)


def _axis_warnings(example: Example, axis: str, sparser: str | None) -> list[str]:
    if example.axis not in ("auto", axis):
        return [
            f"{example.volume.name} is a single {axis} slice, which is not cut along the "
            f"{example.axis} axis"
        ]
    if sparser is None:
        return []
    return [
        f"{example.volume.name} is cut into {axis} slices, but its labels look as if they were "
        f"drawn on single {sparser} ones; if so, choose the {sparser} axis"
    ]
