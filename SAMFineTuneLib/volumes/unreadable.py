"""Finds out from a file's content why it cannot be read, and says so in a message.

The readers report only that they failed, and some wrong files they read without any error.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from SAMFineTuneLib.errors import InputError

FORMATS = (
    "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha, .mhd), "
    "a picture (PNG, JPEG, TIFF, BMP) or a DICOM folder"
)

# So many bytes of a file are looked at. Text headers are far shorter, unless a program stores its
# own notes in them.
_BEGINNING = 1 << 20
_GZIP = b"\x1f\x8b"
_NIFTI_HEADER = 348
_NIFTI_MAGICS = (b"ni1\0", b"n+1\0")
# The types of voxels that ITK reads, by their NIfTI code, and their bits. Complex numbers and
# colours are refused later with messages of their own.
_NIFTI_BITS = {
    2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64,
    1280: 64, 1792: 128, 2304: 32,
}  # fmt: skip
# Larger than any disk: larger offsets come from damaged headers.
_LARGEST_OFFSET = 1 << 40

_NRRD_ENCODINGS = {"raw", "txt", "text", "ascii", "hex", "gz", "gzip"}

_DICOM_KINDS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, the list of what lies on a medium",
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.66.7": "a DICOM segmentation (label map SEG)",
    "1.2.840.10008.5.1.4.1.1.66.5": "a DICOM surface segmentation",
    "1.2.840.10008.5.1.4.1.1.481.3": "a set of contours (DICOM RTSTRUCT)",
    "1.2.840.10008.5.1.4.1.1.481.5": "a radiotherapy plan (DICOM RTPLAN)",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF document in a DICOM file",
    "1.2.840.10008.5.1.4.1.1.66.1": "a spatial registration (DICOM REG)",
    "1.2.840.10008.5.1.4.1.1.66": "DICOM raw data",
}
_DICOM_FAMILIES = {
    "1.2.840.10008.5.1.4.1.1.88.": "a report (DICOM SR)",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state (DICOM PR)",
}
_SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"

# Other kinds of files that often have the name of an image: first bytes, kind, and remedy.
_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the image", "Fetch it: git lfs pull"),
    (b"/annex/objects", "a pointer of git-annex, not the image", "Fetch it: git annex get"),
    (b"PK\x03\x04", "a ZIP archive", "Unpack it and name the image in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and name the image in it"),
    (b"Rar!", "a RAR archive", "Unpack it and name the image in it"),
    (b"BZh", "compressed with bzip2", "Unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it with zstd -d"),
    (b"%PDF", "a PDF document", "Name the image itself"),
    (b"PAR1", "a Parquet table", "Name the image itself"),
    (b"CDF", "a MINC 1 image, which cannot be read", "Convert it to NIfTI with mnc2nii"),
    (
        b"\x89HDF",
        "an HDF5 file, such as MINC 2, which cannot be read",
        "Convert it to NIfTI (MINC: mnc2nii), or save it as NRRD in 3D Slicer",
    ),
)


def refuse_unreadable(path: Path) -> None:
    """Refuses a file whose beginning shows that it cannot be read, or not correctly.

    Raises:
        InputError: the file cannot be read; the message says why.
    """
    content, packed = _beginning(path)
    if not content and not packed:
        raise _refused(path, "is empty: it has no bytes", "Copy, download or export it again")
    for start, what, remedy in _OTHER_FILES:
        if content.startswith(start):
            raise _refused(path, f"is {what}", remedy)
    if content.lstrip()[:64].lower().startswith((b"<!doctype html", b"<html")):
        raise _refused(
            path,
            "is a web page, not an image: a download ended at a login or an error page",
            "Download it again, and log in first",
        )
    if content[128:132] == b"DICM":
        _refuse_dicom_kind(path, content)
    elif content.startswith(b"NRRD"):
        _refuse_nrrd(path, _nrrd_fields(content))
    elif path.suffix.lower() in (".mha", ".mhd"):
        _refuse_metaimage(path, content)
    elif path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
        refuse_unreadable(path.with_suffix(".hdr"))
    elif len(content) >= _NIFTI_HEADER:
        _refuse_nifti(path, content)


def explained(path: Path) -> InputError:
    """The error for a file that a reader failed to read for a reason that it does not say."""
    content, _ = _beginning(path)
    if content.startswith(b"NRRD"):
        fields = _nrrd_fields(content)
        if fields.get("dimension") == "2" and len(_vectors(fields)) == 2:
            return _refused(
                path,
                "is a 2-D image placed in 3-D space, which cannot be read",
                "Save it as a volume of one slice",
            )
    return InputError(
        f"the image '{path}' is damaged or ends too early",
        "Copy, download or export it again",
        code="damaged_image",
    )


def dicom_kind(path: Path) -> str | None:
    """The SOP class of a DICOM file by its file meta information; None for other files."""
    content, _ = _beginning(path)
    return _sop_class(content) if content[128:132] == b"DICM" else None


def _refused(path: Path, what: str, remedy: str, code: str = "not_an_image") -> InputError:
    return InputError(f"'{path}' {what}", remedy, code=code)


def _beginning(path: Path) -> tuple[bytes, bool]:
    """The first bytes, unpacked if they are packed by gzip; and whether they are packed."""
    with path.open("rb") as stream:
        raw = stream.read(_BEGINNING)
    if not raw.startswith(_GZIP):
        return raw, False
    try:
        return zlib.decompressobj(31).decompress(raw, _BEGINNING), True
    except (zlib.error, gzip.BadGzipFile):
        return b"", True


def _sop_class(content: bytes) -> str:
    """The element (0002,0002) of the file meta information, always explicit little endian."""
    at = 132
    # An incomplete element at the end of a truncated file is ignored.
    while content[at : at + 2] == b"\x02\x00" and len(content) >= at + 12:
        element, kind = content[at + 2 : at + 4], content[at + 4 : at + 6]
        if kind in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            (length,) = struct.unpack_from("<I", content, at + 8)
            value = at + 12
        else:
            (length,) = struct.unpack_from("<H", content, at + 6)
            value = at + 8
        if element == b"\x02\x00":
            return content[value : value + length].decode("ascii", "replace").strip("\0 ")
        at = value + length
    return ""


def _refuse_dicom_kind(path: Path, content: bytes) -> None:
    uid = _sop_class(content)
    families = (name for start, name in _DICOM_FAMILIES.items() if uid.startswith(start))
    kind = _DICOM_KINDS.get(uid) or next(families, None)
    if kind is None:
        return
    remedy = "Name an image, or the folder of one DICOM series"
    if uid in _SEGMENTATIONS or uid == _CONTOURS:
        remedy = "Give it as the segmentation, and the images that it belongs to as the volume"
    raise _refused(path, f"is {kind}, not an image", remedy)


def _nrrd_fields(content: bytes) -> dict[str, str]:
    """The fields of an NRRD header, without the key/value pairs that programs add."""
    header = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0].decode("utf-8", "replace")
    fields = {}
    for line in header.splitlines()[1:]:
        key, colon, value = line.partition(": ")
        if colon and not line.startswith("#") and ":=" not in line:
            fields[key.strip().lower()] = value.strip()
    return fields


def _vectors(fields: Mapping[str, str]) -> list[list[float]]:
    """The space directions; axes without one are left out."""
    found = []
    for text in re.findall(r"\(([^)]*)\)", fields.get("space directions", "")):
        try:
            found.append([float(part) for part in text.split(",")])
        except ValueError:
            found.append([math.nan])
    return found


def _refuse_nrrd(path: Path, fields: Mapping[str, str]) -> None:
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in _NRRD_ENCODINGS:
        raise _refused(
            path,
            f"is an NRRD whose voxels are encoded as '{encoding}', which cannot be read",
            "Save it again in 3D Slicer, or with the encoding gzip or raw",
        )
    if fields.get("type", "").lower() == "block":
        raise _refused(path, "is an NRRD of blocks of bytes, not of numbers", "Give an image")
    sizes, dimension = fields.get("sizes", "").split(), fields.get("dimension", "")
    if dimension.isdigit() and sizes and len(sizes) != int(dimension):
        raise _refused(
            path,
            f"has a damaged header: it tells {len(sizes)} sizes and {dimension} dimensions",
            "Export it again",
            "damaged_image",
        )
    data = fields.get("data file") or fields.get("datafile") or ""
    # "LIST" and names with a number pattern stand for several files.
    if data and not data.upper().startswith("LIST") and "%" not in data:
        _require_data_file(path, data)
    _refuse_axes(path, _vectors(fields))
    origin = re.findall(r"\(([^)]*)\)", fields.get("space origin", ""))
    if origin and not _all_finite(origin[0].split(",")):
        raise _refused(path, "gives no place: its origin is no number", "Export it again")
    spacings = [each for each in fields.get("spacings", "").split() if each.lower() != "nan"]
    _refuse_spacings(path, spacings)


def _refuse_metaimage(path: Path, content: bytes) -> None:
    fields = {}
    for line in content.split(b"ElementDataFile", 1)[0].decode("latin-1").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields[key.strip().lower()] = value.strip()
    if "ndims" not in fields and "dimsize" not in fields:
        raise _refused(path, "is not an image that can be read", f"Give {FORMATS}")
    data = re.search(rb"ElementDataFile\s*=\s*([^\r\n]+)", content)
    if data is not None:
        name = data[1].decode("utf-8", "surrogateescape").strip()
        if name.upper() not in ("LOCAL", "LIST") and "%" not in name:
            _require_data_file(path, name)
    spacings = fields.get("elementspacing", "").split()
    _refuse_spacings(path, spacings)
    matrix = (fields.get("transformmatrix") or fields.get("rotation") or "").split()
    side = math.isqrt(len(matrix))
    if side and side * side == len(matrix):
        rows = [matrix[side * row : side * (row + 1)] for row in range(side)]
        _refuse_axes(path, [[_number(each) for each in row] for row in rows])
    offset = (fields.get("offset") or fields.get("position") or fields.get("origin") or "").split()
    if offset and not _all_finite(offset):
        raise _refused(path, "gives no place: its offset is no number", "Export it again")


def _refuse_nifti(path: Path, content: bytes) -> None:
    order = next(
        (each for each in "<>" if struct.unpack_from(each + "i", content)[0] == _NIFTI_HEADER), None
    )
    if order is None:
        return
    if content[344:348] not in _NIFTI_MAGICS:
        raise _refused(
            path,
            "is an Analyze image, which does not say which side of the patient is left",
            "Convert it to NIfTI with a program that knows how it was written",
        )
    axes, *sizes = struct.unpack_from(order + "8h", content, 40)
    kind, bits = struct.unpack_from(order + "2h", content, 70)
    (offset,) = struct.unpack_from(order + "f", content, 108)
    header = "has a damaged NIfTI header: "
    if not 1 <= axes <= 7:
        fault = f"it tells {axes} dimensions"
    elif any(size < 1 for size in sizes[:axes]):
        fault = f"it tells the size {min(sizes[:axes])} of a dimension"
    elif kind not in _NIFTI_BITS:
        fault = f"it tells voxels of a kind that cannot be read (number {kind})"
    elif bits != _NIFTI_BITS[kind]:
        fault = f"it tells {bits} bits a voxel where its kind of voxels has {_NIFTI_BITS[kind]}"
    elif not 0 <= offset <= _LARGEST_OFFSET:
        fault = f"it tells that the voxels begin at byte {offset:g}"
    elif not all(map(math.isfinite, struct.unpack_from(f"{order}{min(axes, 3)}f", content, 80))):
        fault = "its spacings are no numbers"
    else:
        return
    raise _refused(path, header + fault, "Export it again", "damaged_image")


def _require_data_file(path: Path, name: str) -> None:
    data = path.parent / name
    if not data.is_file():
        raise _refused(
            path,
            f"is the header of an image whose voxels should lie in '{data.name}', which is missing",
            "Put both files into one folder",
            "no_such_file",
        )


def _refuse_spacings(path: Path, spacings: list[str]) -> None:
    numbers = [_number(each) for each in spacings]
    for number in numbers:
        if not (math.isfinite(number) and number != 0):
            raise _refused(
                path,
                f"tells a spacing of {number:g} mm between its voxels",
                "Export it again, or mend its header",
                "bad_geometry",
            )


def _refuse_axes(path: Path, vectors: list[list[float]]) -> None:
    for vector in vectors:
        if not all(math.isfinite(each) for each in vector) or not any(vector):
            raise _refused(
                path,
                "tells a direction of an axis that is zero or no number",
                "Export it again, or mend its header",
                "bad_geometry",
            )
    if len(vectors) == 3 and all(len(each) == 3 for each in vectors):
        (a, b, c), (d, e, f), (g, h, i) = vectors
        volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        lengths = math.prod(math.hypot(*each) for each in vectors)
        if abs(volume) < 1e-6 * lengths:
            raise _refused(
                path,
                "tells axes that lie in one plane, which fill no volume",
                "Export it again, or mend its header",
                "bad_geometry",
            )


def _all_finite(parts: list[str]) -> bool:
    return all(math.isfinite(_number(part)) for part in parts)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
