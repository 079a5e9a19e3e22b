"""Reading one row of a list: an image with its complete mask, as slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import ListedPair, evenly_spread, one_frame_each
from SAMFineTuneLib.examples.kept_slices import KnownSlice, most_empty
from SAMFineTuneLib.geometry.drawn_axis import stacking_axis
from SAMFineTuneLib.slices.expected_images import as_expected
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, VoxelSample, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack, suggest_axis
from SAMFineTuneLib.volumes import Labelmap, Volume, labelmap_onto, read_labelmap, read_volume
from SAMFineTuneLib.volumes.labelmap import Colour
from SAMFineTuneLib.volumes.merged_labels import Merges

# Pixels that percentiles are computed from. All pixels of 13 pictures, of 384 x 384 and 512 x 512,
# took 11 ms each instead of 5 ms, and no grey level (0 to 1) differed by more than 0.01.
_SAMPLE = 1 << 16
_LARGEST_LABEL = 65535


@dataclass(frozen=True, eq=False)
class ListedCase:
    """What is kept of a row.

    Attributes:
        slices: those to learn from, with numbers of the mask's labels; all labels are known.
        axis: along which the volume is cut.
        spacing: between rows and between columns, in mm, or 1 where it is not known.
        sample: of the image's pixels.
        names: of the mask's labels, by number, where the mask has names.
        colours: of the mask's labels.
        remarks: what the user should know.
    """

    slices: list[KnownSlice]
    axis: str
    spacing: tuple[float, float]
    sample: VoxelSample
    names: dict[int, str]
    colours: dict[int, Colour]
    remarks: tuple[str, ...]


def read_listed_image(
    pair: ListedPair, expected: IntensityNormalisation | None = None
) -> tuple[Volume, VoxelSample]:
    """The image of a row, as a normalisation expects it, and a sample of its pixels.

    Raises:
        InputError: the file cannot be used, or all its pixels have one value.
    """
    with one_frame_each():
        volume = read_volume(pair.image.path)
    if expected is not None:
        volume = as_expected(volume, expected, pair.image.path.name)
    sample = sample_voxels(volume)
    step = max(1, sample.values.size // _SAMPLE) | 1
    # Few bright pixels may be left out of the smaller sample, as the whole image has two values.
    fewer = sample.values[::step]
    return volume, sample if fewer.min() == fewer.max() else sample._replace(values=fewer)


def read_listed_case(
    pair: ListedPair,
    expected: IntensityNormalisation | None = None,
    merge: Merges | None = None,
) -> ListedCase:
    """The image of a row with its mask.

    Args:
        pair: a row with a mask.
        expected: how images are normalised.
        merge: labels that count as one: new label -> its parts.

    Raises:
        InputError: a file cannot be used, or the mask does not fit the image.
    """
    assert pair.mask is not None
    volume, sample = read_listed_image(pair, expected)
    with one_frame_each():
        mask = read_labelmap(pair.mask.path, empty_ok=True, merge=merge)
    mask = _onto(mask, volume, pair)
    largest = int(mask.array.max(initial=0))
    if largest > _LARGEST_LABEL:
        raise InputError(
            f"{pair.mask.path.name} has the label {largest}",
            f"Number labels from 1 to {_LARGEST_LABEL}",
            code="bad_label",
        )
    axis = _axis(volume, mask)
    images, masks = SliceStack.of(volume, axis), SliceStack.of(mask, axis)
    kept = _kept(masks)
    return ListedCase(
        slices=[
            KnownSlice(number, images[number], masks[number], np.ones(1, dtype=bool))
            for number in kept
        ],
        axis=axis,
        spacing=images.pixel_spacing,
        sample=sample,
        names=dict(mask.names),
        colours=dict(mask.colours),
        # A picture does not say where it lies; this need not be told of each of thousands.
        remarks=(*volume.remarks, *mask.remarks) if len(images) > 1 else (),
    )


def _onto(mask: Labelmap, volume: Volume, pair: ListedPair) -> Labelmap:
    """The mask on the image's grid; a picture and its mask are of one size."""
    assert pair.mask is not None
    same_size = mask.geometry.shape == volume.geometry.shape
    if 1 in volume.geometry.shape or 1 in mask.geometry.shape:
        if not same_size:
            sizes = [" x ".join(map(str, each.geometry.size[:2])) for each in (volume, mask)]
            raise InputError(
                f"{pair.image.path.name} has {sizes[0]} pixels, and its mask "
                f"{pair.mask.path.name} has {sizes[1]}",
                "Give a mask of the image's size",
                code="other_size",
            )
        return Labelmap(mask.array, volume.geometry, mask.names, mask.colours)
    return labelmap_onto(mask, volume.geometry, empty_anywhere=True)


def _axis(volume: Volume, mask: Labelmap) -> str:
    grid = volume.geometry
    if not mask.labels and stacking_axis(grid.shape, grid.spacing[::-1]) is None:
        return "axial"
    return suggest_axis(mask)


def _kept(masks: SliceStack) -> list[int]:
    """All slices with a label, and a selection of the others; of one slice, this one."""
    shown = [number for number in range(len(masks)) if masks[number].any()]
    empty = [number for number in range(len(masks)) if number not in set(shown)]
    chosen = evenly_spread(len(empty), most_empty(len(shown)))
    return sorted([*shown, *(empty[each] for each in chosen)])
