"""Files that cannot be read, or not rightly: each is refused with its own reason."""

from __future__ import annotations

import bz2
import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.volumes import read_labelmap, read_volume

VOXELS = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
NAN, INF = float("nan"), float("inf")


def nrrd(
    path: Path,
    encoding: str = "raw",
    more: str = "",
    data: bytes | None = None,
    directions: str = "(1,0,0) (0,1,0) (0,0,2)",
    sizes: str = "5 4 3",
    kind: str = "float",
    origin: str = "(0,0,0)",
) -> None:
    header = (
        f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
        f"space directions: {directions}\nendian: little\nencoding: {encoding}\n{more}"
        f"space origin: {origin}\n\n"
    )
    path.write_bytes(header.encode() + (VOXELS.tobytes() if data is None else data))


NRRDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "bzip2": ({"encoding": "bzip2", "data": bz2.compress(VOXELS.tobytes())}, ("bzip2", "gzip")),
    "unknown encoding": ({"encoding": "zstd"}, ("zstd",)),
    "voxels missing": ({"more": "data file: gone.raw\n", "data": b""}, ("gone.raw", "missing")),
    "voxels missing, old": ({"more": "datafile: old.raw\n", "data": b""}, ("old.raw", "missing")),
    "wrong sizes": ({"sizes": "5 4"}, ("2 sizes", "3 dimensions")),
    "blocks": ({"kind": "block"}, ("blocks",)),
    "no number": ({"directions": "(nan,0,0) (0,1,0) (0,0,2)"}, ("direction", "no number")),
    "zero": ({"directions": "(0,0,0) (0,1,0) (0,0,2)"}, ("direction", "zero")),
    "one plane": ({"directions": "(1,0,0) (1,0,0) (0,0,2)"}, ("plane",)),
    "nowhere": ({"origin": "(0,nan,0)"}, ("origin", "no number")),
}


def reason(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    error = caught.value
    assert error.remedy and "\n" not in str(error) and "ITK" not in str(error)
    return str(error)


@pytest.mark.parametrize("read", [read_volume, read_labelmap])
@pytest.mark.parametrize("name", NRRDS)
def test_nrrd(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    changes, words = NRRDS[name]
    nrrd(tmp_path / "a.nrrd", **changes)  # type: ignore[arg-type]
    text = reason(read, tmp_path / "a.nrrd")
    assert all(word in text for word in ("a.nrrd", *words)), text


def test_a_header_beside_its_voxels_is_read(tmp_path: Path) -> None:
    (tmp_path / "voxels.raw").write_bytes(VOXELS.tobytes())
    nrrd(tmp_path / "a.nhdr", more="data file: voxels.raw\n", data=b"")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nhdr").array, VOXELS)


META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = {matrix}\nOffset = {offset}\nElementSpacing = {spacing}\n"
    "DimSize = 5 4 3\nElementType = MET_FLOAT\nElementDataFile = {data}\n"
)
PLAIN = {
    "matrix": "1 0 0 0 1 0 0 0 1",
    "offset": "0 0 0",
    "spacing": "1 1 2",
    "data": "LOCAL",
}


@pytest.mark.parametrize("ending", ["mha", "MHA"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": "1 1 0"}, ("spacing of 0 mm",)),
        ({"spacing": "1 nan 1"}, ("spacing of nan mm",)),
        ({"offset": "0 nan 0"}, ("offset", "no number")),
        ({"matrix": "1 0 0 1 0 0 0 0 1"}, ("plane",)),
        ({"data": "gone.raw"}, ("gone.raw", "missing")),
    ],
)
def test_metaimage(
    changes: dict[str, str], words: tuple[str, ...], ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(META.format(**PLAIN).encode() + VOXELS.tobytes())
    np.testing.assert_array_equal(read_volume(path).array, VOXELS)
    path.write_bytes(META.format(**{**PLAIN, **changes}).encode() + VOXELS.tobytes())
    text = reason(read_volume, path)
    assert all(word in text for word in words), text


# Byte, format and value of a field of a NIfTI-1 header, and what the refusal says.
NIFTIS: dict[str, tuple[int, str, float, str]] = {
    "voxels begin nowhere": (108, "f", NAN, "begin at byte nan"),
    "voxels begin at infinity": (108, "f", INF, "begin at byte inf"),
    "voxels begin before the file": (108, "f", -5.0, "begin at byte -5"),
    "voxels begin beyond any disk": (108, "f", 1e30, "begin at byte 1e+30"),
    "nine dimensions": (40, "h", 9, "9 dimensions"),
    "no dimension": (40, "h", 0, "0 dimensions"),
    "a size below zero": (42, "h", -5, "size -5"),
    "three bits a voxel": (72, "h", 3, "3 bits a voxel"),
    "single bits": (70, "h", 1, "number 1"),
    "unknown voxels": (70, "h", 0, "number 0"),
    "spacing": (80, "f", NAN, "no numbers"),
    "place": (280, "f", NAN, "no place in space"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NIFTIS)
def test_nifti(name: str, packed: bool, tmp_path: Path) -> None:
    at, kind, value, words = NIFTIS[name]
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(VOXELS.T, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + kind, content, at, int(value) if kind == "h" else value)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else content)
    assert words in reason(read_volume, path)


@pytest.mark.parametrize("ending", ["img", "hdr"])
def test_analyze_does_not_say_which_side_is_left(ending: str, tmp_path: Path) -> None:
    nibabel.save(nibabel.AnalyzeImage(VOXELS.T, np.eye(4)), tmp_path / "a.img")
    assert "Analyze" in reason(read_volume, tmp_path / f"a.{ending}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--0.nii.gz\n", "git annex get"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <html lang='en'>", "web page"),
        (b"%PDF-1.4", "PDF"),
        (b"BZh9" + bytes(50), "bunzip2"),
        (b"\xfd7zXZ\0" + bytes(50), "unxz"),
        (b"PAR1" + bytes(50), "Parquet"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "MINC"),
        (b"CDF\x01" + bytes(50), "MINC"),
    ],
)
def test_other_files_under_an_image_s_name(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert words in reason(read_volume, path)
    # Nor does packing hide it.
    path.write_bytes(gzip.compress(content))
    if content:
        assert words in reason(read_volume, path)


def test_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.nii", "w") as archive:
        archive.writestr("inside", "x")
    assert "ZIP" in reason(read_volume, tmp_path / "a.nii")


def test_packed_and_cut(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VOXELS.T, np.eye(4)), tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[: len(content) // 2])
    assert "ends too early" in reason(read_volume, tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation (SEG), not an image"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
        ("1.2.840.10008.5.1.4.1.1.88.22", "report"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "PDF"),
        ("1.2.840.10008.1.3.10", "DICOMDIR"),
    ],
)
def test_dicom_objects_that_are_no_images(uid: str, words: str, tmp_path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    content = FileDataset("a", {}, file_meta=meta, preamble=bytes(128))
    content.SOPClassUID, content.SOPInstanceUID = uid, "1.2.3"
    content.save_as(tmp_path / "a", enforce_file_format=True)
    assert words in reason(read_volume, tmp_path / "a")


def test_what_is_no_image_at_all_is_told_the_formats(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("no image " * 100)
    assert "NRRD" in reason(read_volume, tmp_path / "a.nii")
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), tmp_path / "a.mhd")
    assert "NRRD" in reason(read_volume, tmp_path / "a.raw")
