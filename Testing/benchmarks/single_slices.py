"""Which structures on which slices of the shared images a prompted network is measured on.

Volumes are cut along the axis of their thickest slices, axially where no spacing is the largest.
The target on a slice is the largest connected component of the label there (pixels that share a
side are connected), as interactive segmentation is measured in the literature: a user points at
one thing. Other components of the same label count as background. Of every label of a volume at
most five slices are taken, evenly spaced among those whose target has at least 30 pixels.

The labels of `ct_pelvis_dicom` were found on pixels three times as wide and high as the image's
and show as blocks of 3 × 3 pixels; there a target has at least 270 pixels, which are 30 blocks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMFineTuneLib.geometry.axes import axis_name
from SAMFineTuneLib.geometry.drawn_axis import widest_axis
from SAMFineTuneLib.networks.spec import GreyCurve
from SAMFineTuneLib.slices.intensity import IntensityWindow, find_normalisation, sample_voxels
from SAMFineTuneLib.slices.stack import SliceStack
from SAMFineTuneLib.volumes import Geometry, labelmap_onto, read_labelmap, read_volume
from Testing.benchmarks.abdomen import STRUCTURES as ABDOMEN
from Testing.benchmarks.hippocampus import STRUCTURES as HIPPOCAMPUS

_SLICES = 5
_HIPPOCAMPI = 20


@dataclass(frozen=True)
class Source:
    """A volume, its labels, and which of these make up a structure.

    Attributes:
        structures: name -> labels; None for every label by itself.
        least_pixels: of a target.
    """

    data_set: str
    image: Path
    labels: Path
    structures: Mapping[str, Sequence[int]] | None = None
    least_pixels: int = 30


@dataclass(frozen=True, eq=False)
class Target:
    """One structure on one slice.

    Attributes:
        structure: its name.
        slice: number in the volume's stack.
        mask: (rows, columns).
        jitter: four normal numbers, by which the sides of the box around it are moved; always the
            same ones for this target.
    """

    structure: str
    slice: int
    mask: NDArray[np.bool_]
    jitter: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TargetVolume:
    """A volume's slices that have targets, and the targets.

    Attributes:
        name: of the image, in the data set.
        images: slice number -> (rows, columns) grey levels, 0 to 1 in the window.
        spacing: mm between rows and between columns.
    """

    data_set: str
    name: str
    images: Mapping[int, NDArray[np.float32]]
    spacing: tuple[float, float]
    window: IntensityWindow
    targets: Sequence[Target]


def sources(data: Path) -> list[Source]:
    """Every volume that is measured, data set by data set."""
    abdomen = {name: (label,) for label, name in ABDOMEN.items()}
    ct, pelvis = data / "ct_abdomen_3mm", data / "ct_pelvis_dicom"
    brain = data / "brain_tumour_mr"
    three_slices = data / "ct_3slice_dicom_seg"
    return [
        Source(ct.name, ct / "ct.nii.gz", ct / "organs.nii.gz", abdomen),
        Source(pelvis.name, pelvis / "series", pelvis / "organs.nii.gz", least_pixels=270),
        Source(brain.name, brain / "image.nrrd", brain / "tumour.nrrd"),
        *_pairs(data / "fetal_brain_mr_oblique", "_brain"),
        *_pairs(data / "sarcoma_mr", "_tumour"),
        *_hippocampi(data / "hippocampus_mr"),
        Source(three_slices.name, three_slices / "series", three_slices / "liver_spine_seg.nrrd"),
    ]


def _pairs(folder: Path, ending: str) -> Iterator[Source]:
    """The labels of NAME.nii.gz are in NAME and an ending."""
    for labels in sorted(folder.glob(f"*{ending}.nii.gz")):
        yield Source(folder.name, folder / labels.name.replace(ending, ""), labels)


def _hippocampi(folder: Path) -> Iterator[Source]:
    for image in sorted((folder / "images").iterdir())[:_HIPPOCAMPI]:
        yield Source(folder.name, image, folder / "labels" / image.name, HIPPOCAMPUS)


def read_targets(source: Source, curve: GreyCurve = "equalised") -> TargetVolume:
    """The volume's slices with something to point at.

    Args:
        source: the volume and its labels.
        curve: how grey levels rise within its window.
    """
    volume = read_volume(source.image)
    labelmap = labelmap_onto(read_labelmap(source.labels), volume.geometry)
    axis = cut_along(volume.geometry)
    images, labels = SliceStack.of(volume, axis), SliceStack.of(labelmap, axis)
    structures = source.structures or {str(label): (label,) for label in labelmap.labels}
    name = source.image.name
    targets = [
        Target(structure, number, mask, _jitter(f"{source.data_set}/{name}/{structure}/{number}"))
        for structure, wanted in structures.items()
        for number, mask in _evenly_spaced(_components(labels, wanted, source.least_pixels))
    ]
    sample = sample_voxels(volume)
    window = find_normalisation([sample], curve).window_for(sample)
    shown = sorted({target.slice for target in targets})
    levels = {number: window.apply(images[number]) for number in shown}
    return TargetVolume(source.data_set, name, levels, images.pixel_spacing, window, targets)


def cut_along(geometry: Geometry) -> str:
    """The axis of the thickest slices; axial where no spacing is the largest."""
    axis = widest_axis(geometry.spacing[::-1])
    return "axial" if axis is None else axis_name(geometry, axis)


_Numbered = tuple[int, NDArray[np.bool_]]


def _components(labels: SliceStack, wanted: Sequence[int], least: int) -> list[_Numbered]:
    """Number and largest component of every slice whose component is large enough."""
    masks = ((number, np.isin(labels[number], wanted)) for number in range(len(labels)))
    largest = ((number, _largest_component(mask)) for number, mask in masks if mask.any())
    return [(number, mask) for number, mask in largest if mask.sum() >= least]


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    found: NDArray[np.bool_] = parts == sizes[1:].argmax() + 1
    return found


def _evenly_spaced(slices: Sequence[_Numbered]) -> list[_Numbered]:
    places = np.linspace(0, len(slices) - 1, min(_SLICES, len(slices))).round()
    return [slices[int(place)] for place in places]


def _jitter(name: str) -> NDArray[np.float64]:
    """The same for every network and every size of the square."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(4)
