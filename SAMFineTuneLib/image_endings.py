"""The endings of image files, by which formats are recognised.

A longer ending comes before a shorter one that it ends with.
The module imports no image library, so that the jobs' schema and Slicer's process can use it.
"""

from __future__ import annotations

from pathlib import Path

# Pictures that masks are written in: JPEG is none of them, because it changes values.
PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".bmp")
# Formats that images are written in; pictures hold one slice.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", *PICTURE_ENDINGS)
# In addition .dcm, because a DICOM segmentation (SEG) can hold segments, but no image.
SEGMENTATION_ENDINGS = (*IMAGE_ENDINGS, ".dcm")
# Formats that volumes are read from.
_VOLUME_ENDINGS = (
    *(".nii.gz", ".nii", ".seq.nrrd", ".seq.nhdr", ".nrrd", ".mha", ".mhd", ".dcm", ".nhdr"),
    *(".mgz", ".mgh", ".img.gz", ".hdr.gz", ".img", ".hdr"),
    *(*PICTURE_ENDINGS, ".jpg", ".jpeg"),
)


def image_ending(path: Path) -> str | None:
    """The ending, in lower case, of a file to which an image can be written; None for others."""
    return next((each for each in IMAGE_ENDINGS if path.name.lower().endswith(each)), None)


def names_a_picture(path: Path) -> bool:
    """Whether a path has the ending of a picture in which masks are written."""
    return path.name.lower().endswith(PICTURE_ENDINGS)


def names_a_volume(path: Path) -> bool:
    """Whether a file has the ending of a format that volumes are read from."""
    return path.name.lower().endswith(_VOLUME_ENDINGS)


def volume_stem(path: Path) -> str:
    """The name of a volume's file or folder without the ending of its format."""
    for ending in _VOLUME_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name
