"""Reads 2-D NRRD images that are placed in 3-D space, which ITK cannot read.

Such a file gives two axes of three numbers each and an origin (NRRD file format, "space dimension",
"space directions"). It is read as a volume of one slice, whose third axis is perpendicular to the
other two.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from SAMFineTuneLib.errors import InputError

_SUFFIXES = (".nrrd", ".nhdr")
_LONGEST_HEADER = 1 << 20

# Values of the field "space" that name a 3-D space; "space dimension: 3" means one too.
_SPACES = re.compile(
    r"(left|right)-(anterior|posterior)-(superior|inferior)|[lr][ap][si]|"
    r"scanner-xyz|3d-(right|left)-handed"
)


class SliceImage(NamedTuple):
    """The slice as a volume, and remarks for the user on how it was read."""

    image: sitk.Image
    remarks: tuple[str, ...]


def read_slice(path: Path) -> SliceImage | None:
    """The image of a 2-D NRRD file that is placed in 3-D space; None for every other file.

    Raises:
        InputError: its axes are missing or invalid.
        RuntimeError: ITK reports that it is damaged.
    """
    if not path.name.lower().endswith(_SUFFIXES):
        return None
    header, content = _parts(path)
    fields = _fields(header)
    in_space = fields.get("space dimension") == "3" or bool(
        _SPACES.fullmatch(fields.get("space", "").lower())
    )
    if fields.get("dimension") != "2" or not in_space:
        return None
    axes = _vectors(fields.get("space directions", ""))
    if len(axes) != 2:
        raise _no_axes(path)
    normal = np.cross(axes[0], axes[1])
    area = float(np.linalg.norm(normal))
    if not (np.isfinite(area) and area > 0):
        raise _no_axes(path)
    told = _thickness(fields)
    third = normal / area * (told or 1.0)
    volume = _as_volume(header, third, path.parent)
    remark = f"{path.name} does not say how thick its slice is; 1 mm is taken"
    return SliceImage(_read(volume + content), () if told else (remark,))


def _parts(path: Path) -> tuple[str, bytes]:
    """The lines of the header, and the rest of the file with the empty line after the header."""
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
        if not start.startswith(b"NRRD"):
            return "", b""
        end = re.search(rb"\r?\n\r?\n", start)
        if end is None:
            # The voxels are in another file, and then no empty line has to follow the header.
            return start.decode("utf-8", "surrogateescape"), b"\n"
        header = start[: end.start()].decode("utf-8", "surrogateescape")
        # A volume may have many gigabytes, so the rest is read only for a slice.
        is_slice = _fields(header).get("dimension") == "2"
        return header, b"\n\n" + start[end.end() :] + stream.read() if is_slice else b""


def _fields(header: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in header.splitlines()[1:] if not line.startswith("#"))
    return {
        pair[0].strip().lower(): pair[1].strip()
        for pair in pairs
        if len(pair) == 2 and not pair[1].startswith("=")
    }


def _vectors(text: str) -> list[NDArray[np.float64]]:
    found = []
    for part in re.findall(r"\(([^)]*)\)", text):
        try:
            vector = np.array([float(number) for number in part.split(",")])
        except ValueError:
            continue
        if vector.size == 3:
            found.append(vector)
    return found


def _thickness(fields: dict[str, str]) -> float:
    """The largest of the "thicknesses" in mm, 0 if there is none."""
    told = []
    for text in fields.get("thicknesses", "").split():
        try:
            told.append(float(text))
        except ValueError:
            continue
    return max((step for step in told if np.isfinite(step) and step > 0), default=0.0)


def _as_volume(header: str, third: NDArray[np.float64], folder: Path) -> bytes:
    """The header with a third axis of length 1, without fields by axis that are not needed."""
    lines = []
    vector = "(" + ",".join(f"{number:.17g}" for number in third) + ")"
    for line in header.splitlines():
        key = line.split(":", 1)[0].strip().lower()
        rest = line.split(":", 1)[-1].strip()
        if key == "dimension":
            line = "dimension: 3"
        elif key == "sizes":
            line = f"sizes: {rest} 1"
        elif key == "space directions":
            line = f"space directions: {rest} {vector}"
        elif key in ("data file", "datafile") and not Path(rest).is_absolute():
            line = f"data file: {folder.resolve() / rest}"
        elif key in _OF_EACH_AXIS:
            continue
        lines.append(line)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


_OF_EACH_AXIS = (
    *("kinds", "thicknesses", "spacings", "centers", "centerings", "labels", "units"),
    *("axis mins", "axismins", "axis maxs", "axismaxs"),
)


def _read(content: bytes) -> sitk.Image:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slice.nrrd"
        file.write_bytes(content)
        return sitk.ReadImage(str(file))


def _no_axes(path: Path) -> InputError:
    return InputError(
        f"'{path}' is a 2-D image in 3-D space whose two axes are missing, or span no area",
        "Export it again from the program that it comes from",
        code="damaged_image",
    )
