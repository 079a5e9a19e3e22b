"""Images with an axis of time are written so that other programs find every frame in its place."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from SAMFineTuneLib.errors import Cancelled
from SAMFineTuneLib.geometry.grid import Geometry
from SAMFineTuneLib.volumes import (
    Labelmap,
    frames_writing,
    read_grid,
    read_labelmap,
    read_time,
    read_volume,
)
from SAMFineTuneLib.volumes.frames import TimeAxis
from SAMFineTuneLib.volumes.frames_writing import require_frames_holdable, written_frames
from Testing.support.volume_geometries import LIVER, OBLIQUE, refused

FRAMES = 4
TIME = TimeAxis(FRAMES, 0.04)
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".seq.nrrd", ".mha", ".mhd")


def arrays(kind: type[np.generic] = np.uint8) -> np.ndarray:
    """(frames, k, j, i), all frames different."""
    values = np.random.default_rng(0).integers(0, 200, (FRAMES, *OBLIQUE.shape))
    return values.astype(kind)


def write(path: Path, array: np.ndarray, time: TimeAxis = TIME, **told) -> Path:
    with written_frames(path, OBLIQUE, time, array.dtype.type, **told) as store:
        for number, frame in enumerate(array):
            store.put(number, frame)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_what_was_written_is_read(tmp_path, suffix, kind):
    path = write(tmp_path / f"film{suffix}", arrays(kind), compress=kind is not np.uint16)
    assert (read_time(path).frames, read_time(path).step) == (FRAMES, pytest.approx(0.04))
    assert read_grid(path).same_as(OBLIQUE)
    for number in range(FRAMES):
        volume = read_volume(path, frame=number)
        np.testing.assert_array_equal(volume.array, arrays(kind)[number])
        assert volume.array.dtype == kind and volume.geometry.same_as(OBLIQUE)
    names = {each.name for each in tmp_path.iterdir()}
    others = {"film.zraw", "film.raw"} if suffix == ".mhd" else set()
    assert path.name in names and names <= {path.name, *others}


def cancelled(path: Path) -> None:
    with written_frames(path, OBLIQUE, TIME, np.uint8) as store:
        store.put(0, arrays()[0])
        raise Cancelled


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nibabel_and_itk_agree(tmp_path, suffix):
    path = write(tmp_path / f"film{suffix}", arrays())
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(3, 2, 1, 0), arrays())
    assert image.header.get_zooms()[3] == pytest.approx(0.04)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    np.testing.assert_allclose(lps, OBLIQUE.affine, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    by_itk = sitk.ReadImage(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_itk), arrays())
    assert by_itk.GetSpacing() == pytest.approx((*OBLIQUE.spacing, 0.04))


def test_a_sequence_has_the_fields_that_slicer_reads(tmp_path):
    labels = Labelmap(
        np.zeros((1, 1, 1), np.uint8),
        Geometry((1, 1, 1), (1.0,) * 3, (0.0,) * 3, OBLIQUE.direction),
        {2: 'liver, "left" \\ part', 7: "cyst"},
        {2: (1.0, 0.5, 0.0)},
        terminologies={2: LIVER},
    )
    times = ("0", "0.5 s", "1.5", "2")
    time = TimeAxis(FRAMES, 0.0, times, "trigger time", "ms")
    path = write(tmp_path / "film.seq.nrrd", arrays() % 3, time, labels=labels)
    header = path.read_bytes().split(b"\n\n")[0].decode()
    for line in (
        "kinds: list domain domain domain",
        f"sizes: {FRAMES} 7 6 5",
        "space: left-posterior-superior",
        'labels: "trigger time" "" "" ""',
        'units: "ms" "" "" ""',
        "DataNodeClassName:=vtkMRMLLabelMapVolumeNode",
        "axis 0 index type:=text",
        "axis 0 index values:=0 0.5%20s 1.5 2",
    ):
        assert line in header.splitlines()
    found = read_labelmap(path, frame=1)
    assert found.names == labels.names and found.colours[2] == (1.0, 0.5, 0.0)
    assert found.terminologies == {2: LIVER}
    assert read_time(path).name == "trigger time" and read_time(path).unit == "ms"


def test_frames_that_were_not_set_are_empty(tmp_path):
    path = tmp_path / "film.nii.gz"
    with written_frames(path, OBLIQUE, TIME, np.uint8) as store:
        store.put(2, arrays()[2])
    assert [read_volume(path, frame=n).array.any() for n in range(FRAMES)] == [0, 0, 1, 0]


def test_two_places_of_a_nifti_header_are_kept(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((7, 6, 5, 2), np.uint8), None)
    image.set_qform(np.diag([-1.0, -1.0, 2.0, 1.0]), 1)
    moved = np.diag([-1.0, -1.0, 2.0, 1.0])
    moved[:3, 3] = 20, 30, 40
    image.set_sform(moved, 2)
    image.to_filename(tmp_path / "two.nii")
    grid = read_grid(tmp_path / "two.nii")
    assert grid.others
    with written_frames(tmp_path / "found.nii.gz", grid, TimeAxis(2), np.uint8) as store:
        store.put(1, np.ones(grid.shape, np.uint8))
    back = nibabel.load(tmp_path / "found.nii.gz")
    np.testing.assert_allclose(back.get_sform(), moved)
    np.testing.assert_allclose(back.get_qform(), image.get_qform())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("f.seg.nrrd", "overlapping segments"),
        ("f.dcm", "no axis of time"),
        ("f.tif", "no axis of time"),
        ("f.png", "no axis of time"),
    ],
)
def test_formats_without_an_axis_of_time_are_refused(tmp_path, name, reason):
    error = refused(require_frames_holdable, tmp_path / name, OBLIQUE, FRAMES)
    assert error.code == "frames_not_held" and reason in error.message
    assert ".seq.nrrd" in error.remedy


def test_a_sheared_grid_needs_nrrd(tmp_path):
    affine = OBLIQUE.affine
    affine[:3, 2] += affine[:3, 0]
    sheared = Geometry.from_affine(OBLIQUE.size, affine)
    assert refused(require_frames_holdable, tmp_path / "f.nii", sheared, 2).code == (
        "geometry_not_held"
    )
    with written_frames(tmp_path / "f.seq.nrrd", sheared, TIME, np.uint8) as store:
        store.put(0, arrays()[0])
    assert read_grid(tmp_path / "f.seq.nrrd").same_as(sheared)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mhd"])
def test_what_is_cancelled_leaves_the_older_file(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"older")
    with pytest.raises(Cancelled):
        cancelled(path)
    assert path.read_bytes() == b"older"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("action", ["put", "_encode"])
def test_a_full_disk_is_told(tmp_path, monkeypatch, action):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if action == "put":
        monkeypatch.setattr(frames_writing.np, "ascontiguousarray", full)
    else:
        monkeypatch.setattr(frames_writing, "_encode", full)
    error = refused(write, tmp_path / "film.nii.gz", arrays())
    assert error.code == "no_space" and not list(tmp_path.iterdir())


def test_a_file_that_has_other_values_is_noticed(tmp_path, monkeypatch):
    read = frames_writing.read_image

    def other(path, frame):
        found = read(path, frame=frame)
        return found._replace(array=found.array + 1) if frame == 3 else found

    monkeypatch.setattr(frames_writing, "read_image", other)
    assert refused(write, tmp_path / "film.nii", arrays()).code == "unwritable"
    moved = replace(OBLIQUE, origin=(0.0, 0.0, 0.0))
    monkeypatch.setattr(frames_writing, "read_image", read)
    monkeypatch.setattr(frames_writing, "read_geometry", lambda path: moved)
    assert refused(write, tmp_path / "film.nii", arrays()).code == "geometry_not_held"
    assert not list(tmp_path.iterdir())
