"""Images with an axis of time: each frame is read as a 3-D image, and others are refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.volumes import (
    Geometry,
    image_file,
    read_grid,
    read_labelmap,
    read_time,
    read_volume,
)
from SAMFineTuneLib.volumes.decoded_once import decoded_once
from SAMFineTuneLib.volumes.image_grid import placed
from Testing.support.volume_geometries import OBLIQUE, refused

FRAMES = 3


def frames(kind: str = "i2", geometry: Geometry = OBLIQUE) -> np.ndarray:
    """(frames, k, j, i); every voxel of every frame has a value of its own."""
    values = np.arange(FRAMES * np.prod(geometry.shape)).reshape(FRAMES, *geometry.shape)
    return values.astype(kind)


def written(path: Path, array: np.ndarray, step: float = 0.5, values: int = 0) -> Path:
    """A file of (frames, k, j, i) or, with `values`, of (frames, k, j, i, values)."""
    images = [
        placed(sitk.GetImageFromArray(each, isVector=bool(values)), OBLIQUE) for each in array
    ]
    sitk.WriteImage(sitk.JoinSeries(images, 0.0, step), path)
    return path


def sequence(path: Path, array: np.ndarray, list_first: bool = True, more: str = "") -> Path:
    """A sequence as 3D Slicer writes it, with the axis of frames before or behind those of space.

    See vtkMRMLVolumeSequenceStorageNode; older versions of Slicer write the axis first.
    """
    axes = OBLIQUE.affine[:3, :3].T
    vectors = " ".join("(" + ",".join(f"{part:.17g}" for part in axis) + ")" for axis in axes)
    sizes, axis = " ".join(map(str, OBLIQUE.size)), 0 if list_first else 3
    lines = [
        "NRRD0004",
        f"type: {array.dtype.name}",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {FRAMES} {sizes}" if list_first else f"sizes: {sizes} {FRAMES}",
        f"space directions: none {vectors}" if list_first else f"space directions: {vectors} none",
        "kinds: list domain domain domain" if list_first else "kinds: domain domain domain list",
        'labels: "time" "" "" ""' if list_first else 'labels: "" "" "" "time"',
        'units: "s" "" "" ""' if list_first else 'units: "" "" "" "s"',
        "endian: little",
        "encoding: raw",
        "space origin: (" + ",".join(f"{part:.17g}" for part in OBLIQUE.origin) + ")",
        "DataNodeClassName:=vtkMRMLScalarVolumeNode",
        f"axis {axis} index type:=numeric",
        f"axis {axis} index values:=0 0.25 0.5",
        *([more] if more else []),
    ]
    stored = np.moveaxis(array, 0, -1) if list_first else array
    path.write_bytes("\n".join([*lines, "", ""]).encode() + np.ascontiguousarray(stored).tobytes())
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("kind", ["i2", "f4", "u1"])
def test_each_frame_is_a_volume(tmp_path, suffix, kind):
    array = frames(kind)
    path = written(tmp_path / f"film{suffix}", array)
    assert (read_time(path).frames, read_time(path).step) == (FRAMES, pytest.approx(0.5))
    assert read_grid(path).same_as(OBLIQUE)
    for number in range(FRAMES):
        volume = read_volume(path, frame=number)
        np.testing.assert_array_equal(volume.array, array[number])
        assert volume.array.dtype == np.dtype(kind) and volume.geometry.same_as(OBLIQUE)


@pytest.mark.parametrize("list_first", [True, False])
def test_sequences_of_slicer(tmp_path, list_first):
    array = frames()
    path = sequence(tmp_path / "film.seq.nrrd", array, list_first)
    time = read_time(path)
    assert (time.frames, time.step, time.name, time.unit) == (FRAMES, 0.25, "time", "s")
    assert time.values == ("0", "0.25", "0.5")
    assert read_grid(path).same_as(OBLIQUE)
    for number in range(FRAMES):
        volume = read_volume(path, frame=number)
        np.testing.assert_array_equal(volume.array, array[number])
        assert volume.geometry.same_as(OBLIQUE) and not volume.is_colour
    assert refused(read_volume, path).code == "frame_not_chosen"


def test_a_sequence_of_labelmaps(tmp_path):
    array = (frames() % 4).astype(np.uint8)
    named = "Segment0_LabelValue:=2\nSegment0_Name:=spleen"
    path = sequence(tmp_path / "labels.seq.nrrd", array, more=named)
    for number in range(FRAMES):
        labelmap = read_labelmap(path, frame=number)
        np.testing.assert_array_equal(labelmap.array, array[number])
        assert labelmap.names == {2: "spleen"}
    assert refused(read_labelmap, path).code == "frame_not_chosen"


def test_layers_of_a_segmentation_are_no_frames(tmp_path):
    masks = np.zeros((FRAMES, *OBLIQUE.shape), np.uint8)
    masks[0, 0], masks[1, 1], masks[2, 2] = 1, 1, 1
    told = "\n".join(
        f"Segment{n}_LabelValue:=1\nSegment{n}_Layer:={n}\nSegment{n}_ID:=s{n}" for n in range(3)
    )
    path = sequence(tmp_path / "three.seg.nrrd", masks, more=told)
    text = path.read_bytes().replace(b"axis 0 index", b"no field of")
    path.write_bytes(text)
    assert read_time(path).frames == 1
    assert read_labelmap(path).labels == [1, 2, 3]


def test_frames_in_colour(tmp_path):
    array = np.stack([frames("u1"), frames("u1")[:, ::-1], frames("u1") // 2], axis=-1)
    path = written(tmp_path / "film.nrrd", array, values=3)
    volume = read_volume(path, frame=1)
    assert volume.is_colour
    np.testing.assert_array_equal(volume.array, array[1])


@pytest.mark.parametrize("kind", [nibabel.Nifti2Image, nibabel.MGHImage])
def test_formats_that_nibabel_reads(tmp_path, kind):
    array = frames("i4")
    path = tmp_path / ("film.mgz" if kind is nibabel.MGHImage else "film.nii.gz")
    kind(array.transpose(3, 2, 1, 0), np.diag([-1.0, -1.0, 2.0, 1.0])).to_filename(path)
    assert read_time(path).frames == FRAMES
    for number in range(FRAMES):
        np.testing.assert_array_equal(read_volume(path, frame=number).array, array[number])
    assert refused(read_volume, path).code == "frame_not_chosen"
    assert refused(read_volume, path, frame=FRAMES).code == "no_such_frame"


def test_what_nibabel_decoded_is_not_changed_by_reading(tmp_path):
    array = frames("f4")
    array[1, 2, 3, 4] = np.nan
    nibabel.Nifti2Image(array.T, np.eye(4)).to_filename(tmp_path / "f.nii")
    with decoded_once():
        found = [read_volume(tmp_path / "f.nii", frame=number) for number in (1, 0, 1)]
    assert [each.non_finite for each in found] == [1, 0, 1]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slopes_and_voxels_that_are_not_finite(tmp_path, suffix):
    array = frames("f4")
    array[1, 2, 3, 4] = np.nan
    image = nibabel.Nifti1Image(array.transpose(3, 2, 1, 0), np.diag([-1.0, -1.0, 2.0, 1.0]))
    image.to_filename(tmp_path / f"f{suffix}")
    assert [read_volume(tmp_path / f"f{suffix}", frame=n).non_finite for n in range(3)] == [0, 1, 0]
    assert read_volume(tmp_path / f"f{suffix}", frame=1).array[2, 3, 4] == array[1].flat[0]

    scaled = nibabel.Nifti1Image(frames("i2").transpose(3, 2, 1, 0), np.eye(4))
    scaled.header.set_slope_inter(2.0, -5.0)
    scaled.to_filename(tmp_path / f"s{suffix}")
    expected = nibabel.load(tmp_path / f"s{suffix}").get_fdata()[..., 2].T
    np.testing.assert_allclose(read_volume(tmp_path / f"s{suffix}", frame=2).array, expected)


@pytest.mark.parametrize(("unit", "seconds"), [("sec", 2.0), ("msec", 0.002), ("hz", 0.0)])
def test_the_time_step_is_told_in_seconds(tmp_path, unit, seconds):
    image = nibabel.Nifti1Image(frames().transpose(3, 2, 1, 0), np.eye(4))
    image.header.set_zooms((1, 1, 1, 2.0))
    image.header.set_xyzt_units("mm", unit)
    image.to_filename(tmp_path / "film.nii")
    assert read_time(tmp_path / "film.nii").step == pytest.approx(seconds)


def test_what_has_no_such_frame_is_refused_in_words(tmp_path):
    film = written(tmp_path / "film.nii.gz", frames())
    error = refused(read_volume, film)
    assert error.code == "frame_not_chosen" and "3 frames" in error.message
    assert "0 to 2" in error.remedy and error.facts["last"] == 2
    error = refused(read_volume, film, frame=3)
    assert error.code == "no_such_frame" and "no frame 3" in error.message
    single = written(tmp_path / "single.nii.gz", frames()[:1])
    np.testing.assert_array_equal(read_volume(single).array, frames()[0])
    np.testing.assert_array_equal(read_volume(single, frame=0).array, frames()[0])
    error = refused(read_volume, single, frame=1)
    assert error.code == "no_such_frame" and "has one frame" in error.message


def test_five_axes_are_refused(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6, 3, 2), np.uint8), np.eye(4))
    image.to_filename(tmp_path / "five.nii")
    assert refused(read_volume, tmp_path / "five.nii", frame=0).code == "not_3d"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_a_file_that_ends_within_a_later_frame_is_damaged(tmp_path, suffix):
    path = written(tmp_path / f"film{suffix}", frames())
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(read_volume, path, frame=0).code == "damaged_image"


def test_a_packed_file_is_decoded_once_for_all_its_frames(tmp_path, monkeypatch):
    path = written(tmp_path / "film.nii.gz", frames("f4"))
    scans = []
    scan = image_file.non_finite_voxels
    monkeypatch.setattr(
        image_file, "non_finite_voxels", lambda file: scans.append(file) or scan(file)
    )
    with decoded_once():
        for number in range(FRAMES):
            np.testing.assert_array_equal(
                read_volume(path, frame=number).array, frames("f4")[number]
            )
        # A block within another one knows what that has read.
        with decoded_once():
            read_volume(path, frame=0)
    assert scans == [path]
    read_volume(path, frame=0)
    assert scans == [path, path]
