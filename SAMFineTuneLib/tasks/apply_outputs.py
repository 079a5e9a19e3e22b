"""The files that an apply writes, and whether they can be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from SAMFineTuneLib.image_endings import volume_stem
from SAMFineTuneLib.jobs.folder import refuse_overwriting, require_writable_file
from SAMFineTuneLib.jobs.schema import ApplyJob, names_a_dicom_segmentation, names_an_image
from SAMFineTuneLib.volumes import Geometry, can_hold, files_of, require_holdable
from SAMFineTuneLib.volumes.frames import TimeAxis
from SAMFineTuneLib.volumes.frames_writing import require_frames_holdable
from SAMFineTuneLib.volumes.pictures.writing import require_fractions_holdable


class Output(NamedTuple):
    """The files of one volume's results; `uncertainty` is None where none is asked for."""

    segmentation: Path
    uncertainty: Path | None


class _Endings(NamedTuple):
    """Endings of the names of files in a folder, which follow the volume's name."""

    segmentation: str
    uncertainty: str


# What follows the volume's name in the names of segmentations in a folder.
SEGMENTATION_MARK = "_segmentation"
_COMPRESSED_ENDINGS = _Endings("_segmentation.nii.gz", "_uncertainty.nii.gz")
# Uncompressed NIfTI files cannot hold names and colours of labels.
_RAW_ENDINGS = _Endings("_segmentation.seg.nrrd", "_uncertainty.nrrd")
# Those of an image with an axis of time, as 3D Slicer saves sequences.
_SEQUENCE_ENDINGS = _Endings("_segmentation.seq.nrrd", "_uncertainty.seq.nrrd")
# Of pictures only TIFF can hold the uncertainty, which is a fraction.
_PNG_ENDINGS = _Endings("_segmentation.png", "_uncertainty.tif")
_TIFF_ENDINGS = _Endings("_segmentation.tif", "_uncertainty.tif")


def outputs_of(
    job: ApplyJob,
    grids: Sequence[Geometry],
    axes: Sequence[TimeAxis],
    warn: Callable[[str], None],
) -> list[Output]:
    """The files of each volume's results.

    Args:
        job: the job.
        grids: of its volumes.
        axes: the axes of time of its volumes.
        warn: called with a sentence where results in a folder are not written as NIfTI.
    """
    endings = [_endings(job, *each, warn) for each in zip(job.volumes, grids, axes, strict=True)]
    segmentations = _files(job.volumes, job.output, [each.segmentation for each in endings])
    if job.uncertainty is None:
        return [Output(each, None) for each in segmentations]
    uncertainties = _files(job.volumes, job.uncertainty, [each.uncertainty for each in endings])
    return [Output(*each) for each in zip(segmentations, uncertainties, strict=True)]


def require_writable(
    job: ApplyJob,
    outputs: Sequence[Output],
    grids: Sequence[Geometry],
    axes: Sequence[TimeAxis],
) -> None:
    """Checks before the work that all results can be written.

    Raises:
        InputError: a format that cannot store a volume's geometry, a file that the job reads, or
            a file that cannot be written.
    """
    for grid, axis, output in zip(grids, axes, outputs, strict=True):
        if axis.frames > 1:
            for path in (output.segmentation, output.uncertainty):
                if path is not None:
                    require_frames_holdable(path, grid, axis.frames)
            continue
        # A DICOM segmentation stores the position of every frame.
        if not names_a_dicom_segmentation(output.segmentation):
            require_holdable(output.segmentation, grid)
        if output.uncertainty is not None:
            require_holdable(output.uncertainty, grid)
            require_fractions_holdable(output.uncertainty)
    written = [each.segmentation for each in outputs]
    written += [each.uncertainty for each in outputs if each.uncertainty is not None]
    read = dict.fromkeys([*job.volumes, *chain.from_iterable(job.channels)], "a volume")
    read |= {each.segmentation: "what is drawn" for each in job.drawn}
    refuse_overwriting(written, {job.model: "the model", **read})
    for path in written:
        for file in files_of(path):
            require_writable_file(file)


def _endings(
    job: ApplyJob, path: Path, grid: Geometry, axis: TimeAxis, warn: Callable[[str], None]
) -> _Endings:
    """The endings of a volume's results in a folder, of a format that can store its geometry."""
    raw = _RAW_ENDINGS if axis.frames == 1 else _SEQUENCE_ENDINGS
    endings = _COMPRESSED_ENDINGS if job.compress else raw
    if axis.frames > 1 and path.name.lower().endswith((".seq.nrrd", ".seq.nhdr")):
        return _SEQUENCE_ENDINGS
    into_folder = any(
        place is not None and not (names_an_image(place) or names_a_dicom_segmentation(place))
        for place in (job.output, job.uncertainty)
    )
    if grid.is_picture and grid.size[2] == 1:
        return _TIFF_ENDINGS if path.suffix.lower() in (".tif", ".tiff") else _PNG_ENDINGS
    if not into_folder or can_hold(endings.segmentation, grid):
        return endings
    warn(
        f"NIfTI cannot hold where the voxels of {path.name} lie"
        + ("" if grid.is_perpendicular else " (it is sheared)")
        + "; results in a folder are written as NRRD"
    )
    return raw


def _files(volumes: list[Path], output: Path, endings: list[str]) -> list[Path]:
    """One file for each volume: the output itself if it is a file, else named after the volumes."""
    if names_an_image(output) or names_a_dicom_segmentation(output):
        return [output]
    names = result_names(volumes)
    return [output / f"{name}{ending}" for name, ending in zip(names, endings, strict=True)]


def result_names(volumes: Sequence[Path]) -> list[str]:
    """How the results of volumes are named in a folder, without mark and ending."""
    names: list[str] = []
    taken: set[str] = set()
    for volume in volumes:
        name = stem = volume_stem(volume)
        number = 1
        # Volumes of the same name from different folders are distinguished by a number, also where
        # the names differ in upper and lower case only, which some disks do not distinguish.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
