"""DICOM series with several slices at each place: frames in the order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from SAMFineTuneLib.volumes import read_grid, read_time, read_volume
from Testing.support.synthetic_dicom_series import (
    PER_FRAME,
    SPACING,
    cine,
    dataset,
    multi_frame,
    one,
    pixels,
    places_along,
    refused,
    save,
)

SLICES = 4


def shown(volume: Any) -> int:
    """The frame that a volume shows; every voxel must agree."""
    k, j, i = np.indices(volume.array.shape)
    places = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ volume.geometry.affine.T
    above = volume.array - places[..., :3] @ np.array([2.0, 4.0, 8.0])
    number = round(float(above.mean()) / PER_FRAME)
    assert np.abs(above - number * PER_FRAME).max() <= 0.51
    return number


@pytest.mark.parametrize(
    ("field", "times"),
    [
        ("TemporalPositionIdentifier", [[1, 2, 3]] * SLICES),
        # Each slice was taken in heart beats of its own.
        ("TriggerTime", [[10.0 + n, 50.0 + 3 * n, 900.0] for n in range(SLICES)]),
        ("AcquisitionTime", [[f"1159{n}0.5", f"1200{n}0", f"1201{n}0"] for n in range(SLICES)]),
        ("ContentTime", [["090000", "090001", "090002"]] * SLICES),
        ("AcquisitionNumber", [[2, 9, 10]] * SLICES),
    ],
)
def test_frames_are_ordered_by_what_tells_the_time(tmp_path, field, times):
    folder = cine(tmp_path / "cine", field, times)
    assert read_time(folder).frames == 3
    for number in range(3):
        volume = read_volume(folder, frame=number)
        assert volume.array.shape[0] == SLICES and shown(volume) == number
        assert any("3 frames of cine are ordered by" in each for each in volume.remarks)
    assert read_grid(folder).same_as(volume.geometry)
    error = refused(folder)
    assert error.code == "frame_not_chosen" and "3 frames" in error.message


@pytest.mark.parametrize(
    ("field", "times", "step"),
    [
        ("TriggerTime", [[0.0, 40.0, 80.0], [3.0, 43.5, 83.0]], 0.04),
        ("AcquisitionTime", [["115958.5", "120000", "120001.5"]], 1.5),
        ("TriggerTime", [[0.0, 40.0, 120.0]], 0.0),
        ("AcquisitionNumber", [[1, 2, 3]], 0.0),
    ],
)
def test_the_time_between_frames(tmp_path, field, times, step):
    folder = cine(tmp_path / "cine", field, times)
    assert read_time(folder).step == pytest.approx(step, abs=1e-3)


def test_a_single_slice_in_time(tmp_path):
    folder = cine(tmp_path / "cine", "TriggerTime", [[300.0, 20.0, 100.0]])
    assert [shown(read_volume(folder, frame=n)) for n in range(3)] == [1, 2, 0]


def test_a_volume_without_repeated_places_has_one_frame(tmp_path):
    folder = cine(tmp_path / "ct", "AcquisitionTime", [[f"12000{n}"] for n in range(SLICES)])
    assert read_time(folder).frames == 1
    assert shown(read_volume(folder)) == shown(read_volume(folder, frame=0)) == 0
    error = refused(folder, None, 1)
    assert error.code == "no_such_frame" and "has one frame" in error.message


def test_a_missing_slice_of_one_time_is_named(tmp_path):
    folder = cine(tmp_path / "cine", "TemporalPositionIdentifier", [[1, 2, 3]] * 3 + [[1, 2]])
    error = refused(folder, None, 0)
    assert error.code == "uneven_frames" and "3 images are at the place" in error.message
    assert "and 2 at that of" in error.message


def test_frames_at_different_places_are_refused(tmp_path):
    for time, start in ((1, (0.0, 0.0, 0.0)), (2, (0.0, 0.0, 1.3))):
        for place in places_along(SLICES, 5.0, start=start):
            fields = {"TemporalPositionIdentifier": time}
            fields["ImagePositionPatient"] = [float(each) for each in place]
            fields["ImageOrientationPatient"] = [1, 0, 0, 0, 1, 0]
            save(dataset(pixels(place), **fields), tmp_path / f"{time}-{place[2]}.dcm")
    error = refused(tmp_path, None, 1)
    assert error.code == "uneven_frames" and "time point 2 lie at other places" in error.message


def test_frames_of_different_pixel_spacing_are_refused(tmp_path):
    folder = cine(tmp_path / "cine", "TriggerTime", [[1.0]] * SLICES)
    wider = {"PixelSpacing": [2 * SPACING[1], 2 * SPACING[0]]}
    other = cine(tmp_path / "other", "TriggerTime", [[2.0]] * SLICES, **wider)
    for path in other.iterdir():
        path.rename(folder / f"wider-{path.name}")
    error = refused(folder, None, 1)
    assert error.code == "uneven_frames" and "geometry" in error.message


def test_frames_within_one_file(tmp_path):
    places = np.tile(places_along(SLICES), (2, 1))
    data = multi_frame(places)
    for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence = one(TemporalPositionIndex=2 - number // SLICES)
    stored = np.frombuffer(data.PixelData, np.int16).reshape(2, -1).copy()
    stored[0] += PER_FRAME
    data.PixelData = stored.tobytes()
    path = save(data, tmp_path / "e.dcm")
    assert read_time(path).frames == 2
    assert [shown(read_volume(path, frame=n)) for n in range(2)] == [0, 1]
    assert [shown(read_volume(tmp_path, frame=n)) for n in range(2)] == [0, 1]
