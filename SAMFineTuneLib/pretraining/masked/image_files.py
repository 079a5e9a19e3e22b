"""Finds the unlabelled images of a folder or of a list, without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.image_list import read_image_list
from SAMFineTuneLib.image_endings import names_a_volume
from SAMFineTuneLib.pretraining.listed_names import names_beside_the_list
from SAMFineTuneLib.volumes.dicom.folder import Series, find_series_below

# In pairs of files, the header is the image.
_PIXELS_OF_HEADER = {".img": ".hdr", ".img.gz": ".hdr.gz"}
_SEGMENTATION = ".seg.nrrd"


@dataclass(frozen=True)
class ImageFile:
    """An image to read.

    Attributes:
        path: the file, or the folder of a DICOM series.
        name: by which it is told of.
        size: in bytes, of all files.
        changed: the latest time of change, in ns.
        series: UID of the series in a folder; None for files, and for a folder of a list.
    """

    path: Path
    name: str
    size: int
    changed: int
    series: str | None = None


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder or list.

    Attributes:
        files: in their order.
        remarks: what was left out, one sentence each.
    """

    files: list[ImageFile]
    remarks: list[str]


def find_images(source: Path) -> FoundImages:
    """The images of a folder and of all folders in it, or those that a list names.

    Raises:
        InputError: there is no such folder or list, it holds no image, or the list names files that
            do not exist.
    """
    if not source.is_dir():
        return _listed(source)
    series, remarks = find_series_below(source)
    # Files that are no images, such as notes, lie in such folders as well.
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()]
    named = [path for path in paths if _is_image(path)]
    segmentations = [path for path in named if _is_segmentation(path)]
    if segmentations:
        remarks.append(_left_out(segmentations, source))
    files = [_stamped(path, source) for path in named if not _is_segmentation(path)]
    found = [*files, *_of_series(series, source, remarks)]
    if not found:
        raise InputError(
            f"there is no image in {source}",
            "Name a folder with images or DICOM files, or a list of them",
            code="no_images",
        )
    return FoundImages(found, remarks)


def _listed(source: Path) -> FoundImages:
    with names_beside_the_list():
        listed = read_image_list(source, columns=1)
    files = [
        ImageFile(each.image.path, each.image.path.name, each.image.size, each.image.changed)
        for each in listed.pairs
    ]
    return FoundImages(files, listed.remarks)


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    # DICOM files are found by their content; hidden files are leavings of operating systems.
    if name.startswith(".") or name.endswith(".dcm") or not names_a_volume(path):
        return False
    for pixels, header in _PIXELS_OF_HEADER.items():
        if name.endswith(pixels):
            return not path.with_name(path.name[: -len(pixels)] + header).exists()
    return True


def _is_segmentation(path: Path) -> bool:
    return path.name.lower().endswith(_SEGMENTATION)


def _stamped(path: Path, below: Path) -> ImageFile:
    state = path.stat()
    name = str(path.relative_to(below))
    return ImageFile(path, name, state.st_size, state.st_mtime_ns)


def _of_series(found: Sequence[Series], below: Path, remarks: list[str]) -> Iterable[ImageFile]:
    for each in found:
        name = f"{each.folder.relative_to(below)}, series {each.uid[-8:]}"
        if each.aside:
            remarks.append(f"left out: {name} is {each.aside}")
            continue
        states = [file.path.stat() for file in each.files]
        yield ImageFile(
            each.folder,
            name,
            sum(state.st_size for state in states),
            max(state.st_mtime_ns for state in states),
            each.uid or None,
        )


def _left_out(files: Sequence[Path], below: Path) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"left out as segmentations: {files[0].relative_to(below)}{more}"
