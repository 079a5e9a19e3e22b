"""Finds out whether an image file gives the spacing of its voxels; if not, 1 mm is taken."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
_HEADER_BYTES = 1 << 16
_NIFTI_HEADER = 348
_NRRD_SPACING = re.compile(rb"^space directions:|^spacings:", re.MULTILINE)
_META_SPACING = re.compile(rb"^\s*Element(Spacing|Size)\s*=", re.MULTILINE)


def spacing_remarks(path: Path) -> tuple[str, ...]:
    """One sentence if a NIfTI, NRRD, MetaImage or picture file gives no spacing; otherwise none."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        untold = _nifti_untold(_start(path))
    elif name.endswith((".nrrd", ".nhdr")):
        untold = not _NRRD_SPACING.search(_start(path).split(b"\n\n")[0].replace(b"\r", b""))
    elif name.endswith((".mha", ".mhd")):
        untold = not _META_SPACING.search(_start(path).split(b"ElementDataFile")[0])
    else:
        untold = name.endswith(_PICTURES)
    if not untold:
        return ()
    return (f"{path.name} does not tell the spacing of its voxels; it is taken as 1 mm",)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if start[:2] != b"\x1f\x8b":
        return start
    try:
        with gzip.open(path, "rb") as packed:
            return packed.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        # A damaged file is refused when its voxels are read.
        return b""


def _nifti_untold(start: bytes) -> bool:
    """Whether the spacing of an axis is 0, and no matrix (sform) gives it either."""
    if len(start) < _NIFTI_HEADER:
        return False
    order = "<" if struct.unpack_from("<i", start)[0] == _NIFTI_HEADER else ">"
    axes, *_ = struct.unpack_from(order + "8h", start, 40)
    spacings = struct.unpack_from(order + "8f", start, 76)[1:]
    (sform,) = struct.unpack_from(order + "h", start, 254)
    return sform <= 0 and any(each == 0 for each in spacings[: min(max(axes, 0), 3)])
